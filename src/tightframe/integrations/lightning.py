"""`CollapseCallback` for Lightning's Trainer: measures neural collapse during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tightframe.errors import LoaderError, MissingExtraError
from tightframe.integrations.scalars import EPOCH, headline
from tightframe.monitor import Monitor

try:
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.utilities import CombinedLoader
except ImportError:
    raise MissingExtraError("lightning", "lightning") from None

Loader = Iterable[Any] | None


class CollapseCallback(Callback):
    """Measures the module at the end of due epochs (`Monitor.due`) and at the end of training.

        trainer = Trainer(max_epochs=200, callbacks=[CollapseCallback(folder="runs/mine", every=5)])
        trainer.fit(module, datamodule)
        trainer.callbacks[0].monitor.report().to_terminal()

    The callback calls the module's `forward` with a batch's inputs, in the trainer's precision. Epochs count completed
    epochs. Training is unaffected. Checkpoints contain the series, and a resumed run continues it, in its folder too.
    Any other run in a folder with measurements needs `overwrite=True` or `resume=True`. Under `fast_dev_run` the
    callback checks names, but measures and writes nothing.

    Args:
        loader: training batches of this process. Default: the trainer's train dataloader.
        test: held-out batches. Default: the trainer's (first) validation dataloader, once it is loaded.
        log: whether to write headline values to the trainer's loggers, such as "tightframe/nc1", at the step of the
            last batch; at the end of epochs also to `trainer.callback_metrics`, which EarlyStopping reads.
        options: as in `Monitor` and `measure`: layers, folder, overwrite, budget, every, samples, classifier, ...

    The attribute `monitor` is the run's `Monitor`, None before training.
    Raises: LoaderError if there are several train dataloaders and no `loader`; errors of `Monitor` and `measure`.
    """

    monitor: Monitor | None = None
    _state: Mapping[str, Any] | None = None

    def __init__(self, *, loader: Loader = None, test: Loader = None, log: bool = True, **options: Any):
        self._loader, self._test, self._log = loader, test, log
        self._options = {"progress": False, **options}  # the trainer has its own progress bar

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._state = None  # discards a checkpoint loaded only to test or validate

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        options = self._options | ({} if self._state is None else {"resume": True, "overwrite": False})
        if self.monitor is None or self.monitor.model is not pl_module or trainer.current_epoch == 0:
            dry = {"folder": None} if getattr(trainer, "fast_dev_run", False) else {}
            self._close()
            self.monitor = Monitor(pl_module, **{**options, **dry})
        if self._state is not None:
            self.monitor.load_state_dict(self._state)
        progress = trainer.fit_loop.epoch_progress.current
        if 0 < progress.completed == progress.ready:  # a checkpoint of the last batch is older than the measurement
            self._measure(trainer, progress.completed)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = self._measure(trainer, trainer.current_epoch + 1)
        if self._log and values:
            pl_module.log_dict(values, logger=False, sync_dist=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._measure(trainer, trainer.current_epoch, always=True)
        self._close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        """Let other runs write to the folder: callbacks live on with their trainers."""
        if self.monitor is not None:
            self.monitor.close()

    def state_dict(self) -> dict[str, Any]:
        return {} if self.monitor is None else self.monitor.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict  # applied once the monitor exists

    def _measure(self, trainer: Trainer, epoch: int, *, always: bool = False) -> dict[str, float]:
        """Measure a due epoch that is not measured yet; returns the headline values by name."""
        monitor, precision = self.monitor, trainer.precision_plugin
        assert monitor is not None
        measured = bool(monitor.series) and monitor.series[-1].facts.epoch == epoch
        if getattr(trainer, "fast_dev_run", False) or measured or not (always or monitor.due(epoch)):
            return {}
        loaders = (CombinedLoader(each).flattened for each in (trainer.train_dataloader, trainer.val_dataloaders))
        train, held_out = ([loader for loader in some if loader not in (None, [])] for some in loaders)
        if self._loader is None and len(train) > 1:
            raise LoaderError(f"there must be one train dataloader; there are {len(train)}. Choose one with loader=...")
        unpack = self._options.get("unpack") or (lambda batch: batch)
        with precision.forward_context():
            report = monitor.measure(
                train[0] if self._loader is None else self._loader,
                epoch=epoch,
                test=next(iter(held_out), None) if self._test is None else self._test,
                unpack=lambda batch: unpack(precision.convert_input(batch)),
            )
        for logger in trainer.loggers if self._log else ():
            logger.log_metrics({**headline(report), EPOCH: epoch}, max(trainer.global_step - 1, 0))
        return headline(report)
