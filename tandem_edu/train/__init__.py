"""Training: losses, recipes, the compiled step, and runs that go on after they are killed."""

from tandem_edu.train.losses import LOSSES, Objective
from tandem_edu.train.recipes import Recipe, recipe
from tandem_edu.train.router import train_router
from tandem_edu.train.run import Diverged, TrainResult, train, train_together
