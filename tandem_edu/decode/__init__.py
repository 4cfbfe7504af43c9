"""Floor 2: decoding. Sampling, verification, drafters, routers, the compiled loops, the trace."""

from tandem_edu.decode.autoregressive import generate as generate
from tandem_edu.decode.block_mode import block_generate as block_generate
from tandem_edu.decode.block_verify import verify_block as verify_block
from tandem_edu.decode.drafters import Draft as Draft
from tandem_edu.decode.drafters import Drafter as Drafter
from tandem_edu.decode.drafters import PlainDrafter as PlainDrafter
from tandem_edu.decode.drafters import PrimaryOutput as PrimaryOutput
from tandem_edu.decode.drafters import PromptLookup as PromptLookup
from tandem_edu.decode.drafters import TandemDrafter as TandemDrafter
from tandem_edu.decode.request import Output as Output
from tandem_edu.decode.routers import ConfidenceRule as ConfidenceRule
from tandem_edu.decode.routers import EntropyRule as EntropyRule
from tandem_edu.decode.routers import LearnedRouter as LearnedRouter
from tandem_edu.decode.routers import Router as Router
from tandem_edu.decode.sampling import Sampling as Sampling
from tandem_edu.decode.speculative import Cycle as Cycle
from tandem_edu.decode.speculative import speculate as speculate
from tandem_edu.decode.speculative import stream as stream
from tandem_edu.decode.trace import Trace as Trace
from tandem_edu.decode.verify import verify as verify
