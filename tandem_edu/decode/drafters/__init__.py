"""Drafters, each in a file of its own with its idea; `protocol` says what a drafter is."""

from tandem_edu.decode.drafters.choose import as_drafter as as_drafter
from tandem_edu.decode.drafters.cross_attending import GlideDrafter as GlideDrafter
from tandem_edu.decode.drafters.eagle import EagleDrafter as EagleDrafter
from tandem_edu.decode.drafters.early_exit import EarlyExitDrafter as EarlyExitDrafter
from tandem_edu.decode.drafters.plain import PlainDrafter as PlainDrafter
from tandem_edu.decode.drafters.prompt_lookup import PromptLookup as PromptLookup
from tandem_edu.decode.drafters.protocol import Draft as Draft
from tandem_edu.decode.drafters.protocol import Drafter as Drafter
from tandem_edu.decode.drafters.protocol import PrimaryOutput as PrimaryOutput
from tandem_edu.decode.drafters.tandem import TandemDrafter as TandemDrafter
