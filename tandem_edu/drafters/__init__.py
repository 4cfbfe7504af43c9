"""Drafters: the protocol, and one file for each, with its parallel pass, its cached pass and its training."""

from tandem_edu.drafters.deep import DeepTandem
from tandem_edu.drafters.eagle import Eagle
from tandem_edu.drafters.early_exit import EarlyExit
from tandem_edu.drafters.files import Model, describe, load_model, save_model
from tandem_edu.drafters.glide import Glide
from tandem_edu.drafters.plain import Plain
from tandem_edu.drafters.prompt_lookup import PromptLookup
from tandem_edu.drafters.protocol import Draft, Drafter, PrimaryOutput, PrimaryReader, build_reader, readers
from tandem_edu.drafters.tandem import Tandem
