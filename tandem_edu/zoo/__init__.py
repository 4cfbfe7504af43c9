"""Models on disk: the shipped pair, folders with weights, tokenizer and card, Hugging Face's format."""

from tandem_edu.zoo.folders import Saved, load_folder, load_primary, load_router, save_folder, save_router
from tandem_edu.zoo.hf import from_hf, to_hf
from tandem_edu.zoo.shipped import Pair, held_out_text, load_pair, save_pair, texts
