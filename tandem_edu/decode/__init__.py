"""Decoding: sampling, verification, routers, the compiled loops, the trace."""

from tandem_edu.decode.autoregressive import generate
from tandem_edu.decode.block_mode import block_generate
from tandem_edu.decode.cycle import Cycle, cycles
from tandem_edu.decode.request import Output
from tandem_edu.decode.routers import ConfidenceRule, LearnedRouter, Router
from tandem_edu.decode.sampling import Sampling
from tandem_edu.decode.speculative import speculate, stream
from tandem_edu.decode.trace import Trace
from tandem_edu.decode.verify import verify, verify_block
