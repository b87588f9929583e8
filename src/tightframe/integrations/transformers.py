"""`CollapseCallback` for transformers' Trainer: measures neural collapse during training."""

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
_KEY = "tightframe"  # entry of a checkpoint's trainer_state.json


class CollapseCallback(TrainerCallback):
    """Measures the model at the end of due epochs (`Monitor.due`) and at the end of training.

        callback = CollapseCallback(folder="runs/mine", every=5)
        Trainer(model, arguments, train_dataset=data, callbacks=[callback]).train()
        callback.monitor.report().to_terminal()

    The callback calls the model without labels. It measures every sample of the Trainer's data sets once, even if the
    sampler repeats or drops some; an `IterableDataset` is read as the Trainer yields it. Epochs count completed epochs.
    Training is unaffected. Checkpoints contain the series, and a resumed run continues it, in its folder too. Any other
    run in a folder with measurements needs `overwrite=True` or `resume=True`. The Trainer's log history also contains
    the headline values, such as "tightframe/nc1".

    Args:
        loader: training batches of this process. Default: the Trainer's training data.
        test: held-out batches. Default: the (first) data set on which the Trainer evaluates during training, from the
            first evaluation on; other evaluations have no effect.
        options: as in `Monitor` and `measure`: layers, folder, overwrite, budget, every, samples, classifier, ...

    The attribute `monitor` is the run's `Monitor`, None before training. Raises: errors of `Monitor` and `measure`.
    """

    monitor: Monitor | None = None
    _awaits_evaluation = False  # measure after the next evaluation
    _begins_evaluation = False  # the next evaluation is on the first data set
    _held_out: Any = None

    def __init__(self, *, loader: Loader = None, test: Loader = None, **options: Any):
        self._loader, self._test = loader, test
        self._options = {"progress": False, "ignore_index": IGNORED, **options}  # the Trainer has its own progress bar

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
        self._awaits_evaluation = self._begins_evaluation = control.should_evaluate  # it brings the held-out data
        if not self._awaits_evaluation:
            self._measure(args, state, given, always=control.should_training_stop)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if self._begins_evaluation or self._held_out is None:
            self._held_out, self._begins_evaluation = given["eval_dataloader"], False
        if self._awaits_evaluation:
            self.on_epoch_end(args, state, control, **given)  # control.should_evaluate is reset by now

    def on_train_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        if not args.load_best_model_at_end:  # the best model may not be the last
            self._measure(args, state, given, always=True)
        assert self.monitor is not None
        self.monitor.close()  # callbacks live on with their trainers

    def _measure(self, args: Any, state: Any, given: dict[str, Any], *, always: bool = False) -> None:
        """Measure a due epoch that is not measured yet."""
        monitor = self.monitor
        assert monitor is not None
        measured = bool(monitor.series) and monitor.series[-1].facts.epoch == state.epoch
        if not measured and (always or monitor.due(state.epoch)):
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
