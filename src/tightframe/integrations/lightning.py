"""`CollapseCallback` for Lightning's Trainer: neural collapse measured while a module is fitted."""

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
    """Measures the module at the end of every epoch that is due (`Monitor.due`), and at the end of training.

        trainer = Trainer(max_epochs=200, callbacks=[CollapseCallback(folder="runs/mine", every=5)])
        trainer.fit(module, datamodule)
        trainer.callbacks[0].monitor.report().to_terminal()

    The module's `forward` is called with a batch's inputs, in the trainer's precision. Epochs are those completed.
    Training goes on as if nothing had been measured. Checkpoints hold the series, and a run resumed from one continues
    it, in its folder too. Any other run in a folder that holds measurements needs `overwrite=True` or `resume=True`.
    Under `fast_dev_run` the monitor is made, so names are checked, but measures and writes nothing.

    Args:
        loader: training batches, for each process its part; default: the trainer's train dataloader.
        test: held-out batches; default: the trainer's validation dataloader (the first of several), once it is loaded.
        log: write the headline values to the trainer's loggers, as "tightframe/nc1" and so on at the step of the last
            batch; at the end of epochs also to `trainer.callback_metrics`, where EarlyStopping looks for them.
        options: of `Monitor` and of `measure`: layers, folder, overwrite, budget, every, samples, classifier, ....

    The run's `Monitor` is the attribute `monitor`, None before the start of training.
    Raises: LoaderError if there are several train dataloaders and `loader` doesn't say which; as `Monitor`, `measure`.
    """

    monitor: Monitor | None = None
    _state: Mapping[str, Any] | None = None

    def __init__(self, *, loader: Loader = None, test: Loader = None, log: bool = True, **options: Any):
        self._loader, self._test, self._log = loader, test, log
        self._options = {"progress": False, **options}  # the trainer has a progress bar of its own

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._state = None  # of a checkpoint that was loaded only to test or validate

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
        self._state = state_dict  # until there is a monitor to take it

    def _measure(self, trainer: Trainer, epoch: int, *, always: bool = False) -> dict[str, float]:
        """Measure an epoch that wasn't yet and is due; returns the headline values by name."""
        monitor, precision = self.monitor, trainer.precision_plugin
        assert monitor is not None
        known = bool(monitor.series) and monitor.series[-1].facts.epoch == epoch
        if getattr(trainer, "fast_dev_run", False) or known or not (always or monitor.due(epoch)):
            return {}
        loaders = (CombinedLoader(each).flattened for each in (trainer.train_dataloader, trainer.val_dataloaders))
        train, held_out = ([loader for loader in some if loader not in (None, [])] for some in loaders)
        if self._loader is None and len(train) > 1:
            raise LoaderError(f"the trainer has {len(train)} train dataloaders; say which to measure with loader=...")
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
