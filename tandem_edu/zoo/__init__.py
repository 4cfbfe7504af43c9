"""Floor 4: models on disk. Folders with weights, tokenizer and card; Hugging Face import and export."""

from tandem_edu.zoo.folders import Saved as Saved
from tandem_edu.zoo.folders import load_folder as load_folder
from tandem_edu.zoo.folders import load_primary as load_primary
from tandem_edu.zoo.folders import save_folder as save_folder
from tandem_edu.zoo.hf import from_hf as from_hf
from tandem_edu.zoo.hf import to_hf as to_hf
from tandem_edu.zoo.routers import load_router as load_router
from tandem_edu.zoo.routers import save_router as save_router
from tandem_edu.zoo.shipped import Pair as Pair
from tandem_edu.zoo.shipped import load_pair as load_pair
from tandem_edu.zoo.shipped import save_pair as save_pair
from tandem_edu.zoo.split import held_out_text as held_out_text
from tandem_edu.zoo.split import texts as texts
