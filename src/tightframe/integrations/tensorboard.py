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
    """A `Tracker` that writes every measurement as scalars, such as "tightframe/nc1" and "tightframe/layer4/nc1".

        tracker = TensorBoardTracker("runs/mine")
        monitor = Monitor(model, trackers=[tracker])

    Undefined values are left out. Each measurement is flushed to disk.

    Args:
        writer: a folder for event files, or an existing SummaryWriter.
        steps_per_epoch: TensorBoard's steps are integers; a measurement is at epoch * steps_per_epoch, rounded. Set it
            for fractional epochs, or to show training steps on the axis.
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
        """Close the event file, unless the caller passed the writer."""
        if self._owns:
            self.writer.close()
