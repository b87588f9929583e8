"""`WandbTracker`: the series of a `Monitor` as curves in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping

from tightframe.errors import MissingExtraError, StateError
from tightframe.integrations.scalars import EPOCH, scalars

try:
    import wandb
except ImportError:
    raise MissingExtraError("wandb", "wandb") from None


class WandbTracker:
    """Logs every measurement as "tightframe/nc1", "tightframe/layer4/nc1" and so on; a `Tracker`.

        with wandb.init(project="collapse") as run:
            monitor = Monitor(model, trackers=[WandbTracker(run)])

    Their axis is "tightframe/epoch", whatever steps the run logs other things at; epochs may be fractions. Undefined
    values are left out. The run is yours to finish.

    Args:
        run: default: the run that `wandb.init` made last, as trainers' own loggers do.

    Raises: StateError if there is no run.
    """

    def __init__(self, run: wandb.Run | None = None):
        found = run or wandb.run
        if found is None:
            raise StateError("there is no Weights & Biases run; call wandb.init() first, or pass one.")
        self.run: wandb.Run = found
        self.run.define_metric(EPOCH, hidden=True)
        self.run.define_metric("tightframe/*", step_metric=EPOCH)

    def __call__(self, values: Mapping[str, float], epoch: float) -> None:
        """Log the values of a measurement."""
        self.run.log({**scalars(values), EPOCH: epoch})
