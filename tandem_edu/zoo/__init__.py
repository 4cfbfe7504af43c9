"""Models on disk: the shipped pair, folders with weights, tokenizer and card, Hugging Face's format."""

from tandem_edu.zoo.folders import Saved, load_folder, load_primary, save_folder
from tandem_edu.zoo.hf import from_hf, to_hf
from tandem_edu.zoo.routers import load_router, save_router
from tandem_edu.zoo.shipped import Pair, load_pair, save_pair
from tandem_edu.zoo.split import held_out_text, texts
