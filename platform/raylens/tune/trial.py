"""A trial of Ray Tune: a process that trains a run of raylens in a thread and returns its evaluations."""

import threading
from collections.abc import Mapping
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from ray import tune

from raylens.config import RunConfig, load_yaml, validated
from raylens.errors import ConfigError, NotFoundError, TrainingError, WorkersLostError
from raylens.interrupts import Interrupts
from raylens.messages import quiet
from raylens.storage import Store, open_store
from raylens.train.run import fit, scale_shift
from raylens.train.run.fork import fork
from raylens.train.runs import CONFIG
from raylens.tune.checkpoint_ref import CheckpointRef
from raylens.tune.config import SweepConfig
from raylens.tune.paths import RUNS, read_config
from raylens.tune.reporter import Reporter, Result

__all__ = ["Trial", "trial_config"]

DIAGNOSIS = "diagnosis.txt"
"""File in the folder of a run whose failure would only be repeated."""
END_SECONDS = 120.0
"""Seconds to wait for a run to end; a run whose workers are starting ends after their first step."""


class Trial(tune.Trainable):  # type: ignore[misc] # Ray is untyped here
    """A trial, whose configuration is ``{"sweep": URI, "trial": {"number", "repeat", "values"}}``.

    It is a class because Ray Tune ends the process of a function trainable at once, and resources that Ray Train had
    reserved for its workers would stay reserved; `cleanup` releases them.
    """

    def setup(self, config: Mapping[str, Any]) -> None:  # noqa: ARG002 (it is in self.config)
        """Implement `tune.Trainable.setup`; training begins with the first step, once a checkpoint may be loaded."""
        self._ref: CheckpointRef | None = None
        self._results: SimpleQueue[Any] = SimpleQueue()
        # A trial has no terminal; its run logs events in the run's folder.
        self._interrupts = Interrupts(quiet, notice="")
        self._thread: threading.Thread | None = None

    def step(self) -> Result:
        """Implement `tune.Trainable.step`: train until the next evaluation and return it.

        Raises:
            RaylensError: the run failed.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._train, name="raylens-trial", daemon=True)
            self._thread.start()
        item = self._results.get()
        if isinstance(item, BaseException):
            raise item
        result: Result = item
        if saved := result.pop("saved"):
            samples = result["samples"] // result["steps"] * saved
            values = self.config["trial"]["values"]
            self._ref = CheckpointRef(str(self.trial_name), result["run"], saved, samples, values)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Implement `tune.Trainable.save_checkpoint`: write a reference to the newest checkpoint of the run."""
        CheckpointRef.write(self._ref, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """Implement `tune.Trainable.load_checkpoint`: resume the trial, or become a copy of another."""
        self._ref = CheckpointRef.read(Path(checkpoint_dir))

    def cleanup(self) -> None:
        """Implement `tune.Trainable.cleanup`: the run saves its state after the current step and ends."""
        if self._thread is not None and self._thread.is_alive():
            self._interrupts.stop()
            self._thread.join(END_SECONDS)

    def _train(self) -> None:
        try:
            self._results.put({**self._fit(), "done": True})
        except BaseException as error:  # noqa: BLE001 (this is a thread: `step` raises it)
            self._results.put(error)

    def _fit(self) -> Result:
        store = open_store(self.config["sweep"])
        sweep = read_config(store)
        run = _begin(store, sweep, str(self.trial_name), self.config["trial"], self._ref)
        folder = store / RUNS / run.name
        _fail_again(folder)
        reporter = Reporter(sweep, run, folder, self._results)
        try:
            fitted = fit(run, say=quiet, on_event=reporter.on_event, interrupts=self._interrupts)
            return reporter.end(fitted.prepared.steps)
        except WorkersLostError:
            raise  # transient: Ray Tune tries again
        except (ConfigError, TrainingError) as error:
            folder.write(DIAGNOSIS, str(error).encode())
            raise


def _begin(
    store: Store, sweep: SweepConfig, label: str, trial: Mapping[str, Any], ref: CheckpointRef | None
) -> RunConfig:
    """Return the run to train: the trial's own, or one that continues the checkpoint of another trial."""
    if ref is None:
        return _from_nothing(store, sweep, label, trial)
    if ref.label == label and ref.values == trial["values"]:
        return trial_config(store, sweep, ref.run, trial)
    run = trial_config(store, sweep, f"{sweep.name}-{label}-{ref.fork_digest(trial['values'])}", trial)
    before = trial_config(store, sweep, ref.run, {**trial, "values": ref.values})
    target = store / RUNS / run.name
    fork(store / RUNS / ref.run, ref.step, target, shift=scale_shift(before, run))
    ref.write_origin(target)
    return run


def _from_nothing(store: Store, sweep: SweepConfig, label: str, trial: Mapping[str, Any]) -> RunConfig:
    """Return the first run of a trial; a copy of a trial without a checkpoint is another run, from step 0."""
    run = trial_config(store, sweep, f"{sweep.name}-{label}", trial)
    if sweep.scheduler.kind == "pbt" and (store / RUNS / run.name).exists(CONFIG):
        saved = load_yaml((store / RUNS / run.name).read_text(CONFIG), run.name)
        if saved != run.model_dump(mode="json"):
            digest = CheckpointRef(label, run.name, 0, 0, {}).fork_digest(trial["values"])
            return trial_config(store, sweep, f"{run.name}-{digest}", trial)
    return run


def trial_config(store: Store, sweep: SweepConfig, name: str, trial: Mapping[str, Any]) -> RunConfig:
    """Return the complete configuration of a trial's run.

    Raises:
        ConfigError: the values of the trial are inconsistent.
    """
    tree = sweep.trial_tree(trial["values"])
    tree |= {"name": name, "storage": (store / RUNS).uri, "seed": tree["seed"] + trial["repeat"]}
    tree["registry"] = sweep.run.registry_uri
    if sweep.scheduler.kind == "pbt":
        # Every checkpoint that may be copied must be kept.
        every = tree["evaluation"]["every_steps"]
        tree["checkpoint"] = {**tree["checkpoint"], "every_steps": every, "keep_every": every}
    return validated(RunConfig, tree)


def _fail_again(folder: Store) -> None:
    """Raise the recorded error of a run that would fail again, since Ray Tune retries every failure."""
    try:
        diagnosis = folder.read_text(DIAGNOSIS)
    except NotFoundError:
        return
    raise TrainingError(diagnosis)
