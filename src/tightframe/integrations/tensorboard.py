"""`TensorBoardTracker`: the series of a `Monitor` as curves in TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tightframe.errors import MissingExtraError
from tightframe.integrations.scalars import scalars

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    raise MissingExtraError("tensorboard", "tensorboard") from None


class TensorBoardTracker:
    """Writes every measurement as scalars "tightframe/nc1", "tightframe/layer4/nc1" and so on; a `Tracker`.

        tracker = TensorBoardTracker("runs/mine")
        monitor = Monitor(model, trackers=[tracker])

    Undefined values are left out. Each measurement is on disk once it is made.

    Args:
        writer: a folder for event files, or a SummaryWriter that is in use already.
        steps_per_epoch: TensorBoard's steps are whole numbers: a measurement is at epoch * steps_per_epoch, rounded.
            Give it where epochs are fractions, or to have the steps of training on the axis.
    """

    def __init__(self, writer: str | os.PathLike[str] | SummaryWriter, *, steps_per_epoch: float = 1):
        self._owns = not isinstance(writer, SummaryWriter)
        self.writer = writer if isinstance(writer, SummaryWriter) else SummaryWriter(os.fspath(writer))
        self.steps_per_epoch = steps_per_epoch

    def __call__(self, values: Mapping[str, float], epoch: float) -> None:
        """Write the values of a measurement."""
        for name, value in scalars(values).items():
            self.writer.add_scalar(name, value, round(epoch * self.steps_per_epoch))
        self.writer.flush()

    def close(self) -> None:
        """Close the event file, unless the writer was given."""
        if self._owns:
            self.writer.close()
