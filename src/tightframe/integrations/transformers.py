"""`CollapseCallback` for transformers' Trainer: neural collapse measured while a model is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from tightframe.errors import MissingExtraError
from tightframe.integrations.scalars import headline
from tightframe.monitor import Monitor
from tightframe.processes import rank, world_size
from tightframe.sources.next_token import IGNORED

try:
    from transformers import TrainerCallback
except ImportError:
    raise MissingExtraError("transformers", "transformers") from None

Loader = Iterable[Any] | None
_KEY = "tightframe"  # in the trainer_state.json of a checkpoint


class CollapseCallback(TrainerCallback):
    """Measures the model at the end of every epoch that is due (`Monitor.due`), and at the end of training.

        callback = CollapseCallback(folder="runs/mine", every=5)
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
        callback.monitor.report().to_terminal()

    The model is called without labels. Every sample of the Trainer's data sets is measured once, whatever its sampler
    repeats or drops; an `IterableDataset` is taken as the Trainer gives it. Epochs are those completed. Training goes
    on as if nothing had been measured. Checkpoints hold the series, and a run resumed from one continues it, in its
    folder too. Any other run in a folder that holds measurements needs `overwrite=True` or `resume=True`.
    Headline values are also in the Trainer's log history, as "tightframe/nc1" and so on.

    Args:
        loader: training batches, for each process its part; default: the Trainer's training data.
        test: held-out batches; default: the data that the Trainer evaluates on as it trains, the first if there are
            several, from the first evaluation on; what else is evaluated in between changes nothing.
        options: of `Monitor` and of `measure`: layers, folder, overwrite, budget, every, samples, classifier, ....

    The run's `Monitor` is the attribute `monitor`, None before the start of training. Raises: as `Monitor`, `measure`.
    """

    monitor: Monitor | None = None
    _awaits_evaluation = False  # to measure
    _begins_evaluation = False  # of all data sets, in turn
    _held_out: Any = None

    def __init__(self, *, loader: Loader = None, test: Loader = None, **options: Any):
        self._loader, self._test = loader, test
        self._options = {"progress": False, "ignore_index": IGNORED, **options}  # the Trainer shows progress itself

    def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        saved, self._held_out = state.stateful_callbacks.get(_KEY), None
        options = self._options | ({} if saved is None else {"resume": True, "overwrite": False})
        if self.monitor is not None:  # of an earlier call of `train`, which may have failed
            self.monitor.close()
        self.monitor = Monitor(given["model"], **options)
        if saved is not None:
            self.monitor.load_state_dict(saved)
        if state.global_step and float(state.epoch).is_integer():  # a checkpoint may be older than the measurement
            self._measure(args, state, given)

    def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._begins_evaluation = control.should_evaluate

    def on_epoch_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        self._awaits_evaluation = self._begins_evaluation = control.should_evaluate  # which brings the held-out data
        if not self._awaits_evaluation:
            self._measure(args, state, given, always=control.should_training_stop)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self._begins_evaluation or self._held_out is None:
            self._held_out, self._begins_evaluation = given["eval_dataloader"], False
        if self._awaits_evaluation:
            self.on_epoch_end(args, state, control, **given)  # control.should_evaluate is off again

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not args.load_best_model_at_end:  # the best need not be the last epoch's
            self._measure(args, state, given, always=True)
        assert self.monitor is not None
        self.monitor.close()  # callbacks live on with their trainers

    def _measure(self, args: Any, state: Any, given: dict[str, Any], *, always: bool = False) -> None:
        """Measure an epoch that wasn't yet and is due."""
        monitor = self.monitor
        assert monitor is not None
        known = bool(monitor.series) and monitor.series[-1].facts.epoch == state.epoch
        if not known and (always or monitor.due(state.epoch)):
            loader = _in_order(given["train_dataloader"], args) if self._loader is None else self._loader
            test = _in_order(self._held_out, args) if self._test is None else self._test
            values = headline(monitor.measure(loader, epoch=state.epoch, test=test))
            state.log_history.append({**values, "epoch": state.epoch, "step": state.global_step})
            state.stateful_callbacks[_KEY] = monitor.state_dict()


def _in_order(loader: Any, args: Any) -> Any:
    """This process's part of the loader's data set, every sample once."""
    if loader is None or isinstance(loader.dataset, IterableDataset):
        return loader
    part: Any = DistributedSampler(loader.dataset, world_size(), rank(), shuffle=False)  # `measure` drops its padding
    workers = args.dataloader_num_workers
    return DataLoader(loader.dataset, args.eval_batch_size, None, part, None, workers, loader.collate_fn)
