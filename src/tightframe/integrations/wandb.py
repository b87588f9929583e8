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
    """A `Tracker` that logs every measurement, for example as "tightframe/nc1" and "tightframe/layer4/nc1".

        with wandb.init(project="collapse") as run:
            monitor = Monitor(model, trackers=[WandbTracker(run)])

    The axis is "tightframe/epoch", independent of the run's steps; epochs may be fractions. Undefined values are left
    out. The caller finishes the run.

    Args:
        run: a run. Default: the latest run of `wandb.init`, as in the loggers of trainers.

    Raises: StateError if there is no run.
    """

    def __init__(self, run: wandb.Run | None = None):
        active = run or wandb.run
        if active is None:
            raise StateError("there is no Weights & Biases run; call wandb.init() first, or pass one.")
        self.run: wandb.Run = active
        self.run.define_metric(EPOCH, hidden=True)
        self.run.define_metric("tightframe/*", step_metric=EPOCH)

    def __call__(self, values: Mapping[str, float], epoch: float) -> None:
        """Log the values of a measurement."""
        self.run.log({**scalars(values), EPOCH: epoch})
