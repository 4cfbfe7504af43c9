"""Floor 3: training. Losses, recipes, the compiled step and runs that can be broken off."""

from tandem_edu.train.evaluation import evaluate as evaluate
from tandem_edu.train.losses import Objective as Objective
from tandem_edu.train.losses import cross_entropy as cross_entropy
from tandem_edu.train.losses import kl_divergence as kl_divergence
from tandem_edu.train.losses import negative_log_acceptance as negative_log_acceptance
from tandem_edu.train.losses import reverse_kl_divergence as reverse_kl_divergence
from tandem_edu.train.losses import total_variation as total_variation
from tandem_edu.train.recipes import Recipe as Recipe
from tandem_edu.train.recipes import recipe as recipe
from tandem_edu.train.router import train_router as train_router
from tandem_edu.train.run import Diverged as Diverged
from tandem_edu.train.run import TrainResult as TrainResult
from tandem_edu.train.run import train as train
from tandem_edu.train.run import train_together as train_together
