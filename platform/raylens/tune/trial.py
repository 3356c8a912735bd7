"""A trial as Ray Tune runs it: a process that trains a run of raylens in a thread and hands out its evaluations."""

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
from raylens.train.run.fork import fork, scale_shift
from raylens.train.run.launch import fit
from raylens.train.runs.run_dir import CONFIG
from raylens.tune.checkpoint_ref import Pointer
from raylens.tune.config import SweepConfig
from raylens.tune.paths import RUNS, read_config
from raylens.tune.reporter import Reporter, Result

__all__ = ["Trial", "trial_config"]

DIAGNOSIS = "diagnosis.txt"
"""In the folder of a run that failed in a way that would only come again."""
END_SECONDS = 120.0
"""So long is a run waited for that was told to end; one whose workers are only starting ends with their first step."""


class Trial(tune.Trainable):  # type: ignore[misc] # Ray is untyped here
    """Its configuration is ``{"sweep": URI, "trial": {"number", "repeat", "values"}}``.

    A class and not a function: when Ray Tune stops a trial it ends the process of a function at once, and what Ray
    Train had reserved for its workers would stay reserved. `cleanup` has it given back.
    """

    def setup(self, config: Mapping[str, Any]) -> None:  # noqa: ARG002 (it is in self.config)
        """See Ray Tune. Training begins with the first step: until then a checkpoint may come to begin from."""
        self._pointer: Pointer | None = None
        self._results: SimpleQueue[Any] = SimpleQueue()
        # A trial has no terminal; what happens to its run stands in the run's folder.
        self._interrupts = Interrupts(quiet, notice="")
        self._thread: threading.Thread | None = None

    def step(self) -> Result:
        """Until the next evaluation; the last is done when the run is over.

        Raises:
            RaylensError: why the run failed.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._train, name="raylens-trial", daemon=True)
            self._thread.start()
        found = self._results.get()
        if isinstance(found, BaseException):
            raise found
        result: Result = found
        if saved := result.pop("saved"):
            samples = result["samples"] // result["steps"] * saved
            values = self.config["trial"]["values"]
            self._pointer = Pointer(str(self.trial_name), result["run"], saved, samples, values)
        return result

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """See Ray Tune: where the newest state is, at the last result or before it."""
        Pointer.write(self._pointer, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint_dir: Any) -> None:
        """See Ray Tune: the trial's own state, or that of another which it becomes a copy of."""
        self._pointer = Pointer.read(Path(checkpoint_dir))

    def cleanup(self) -> None:
        """See Ray Tune: the run saves its state after the current step, ends, and gives back what it has."""
        if self._thread is not None and self._thread.is_alive():
            self._interrupts.stop()
            self._thread.join(END_SECONDS)

    def _train(self) -> None:
        try:
            self._results.put({**self._fit(), "done": True})
        except BaseException as error:  # noqa: BLE001 (in a thread: `step` raises it)
            self._results.put(error)

    def _fit(self) -> Result:
        store = open_store(self.config["sweep"])
        sweep = read_config(store)
        run = _begin(store, sweep, str(self.trial_name), self.config["trial"], self._pointer)
        folder = store / RUNS / run.name
        _fail_again(folder)
        reporter = Reporter(sweep, run, folder, self._results)
        try:
            fitted = fit(run, say=quiet, on_event=reporter.on_event, interrupts=self._interrupts)
            return reporter.end(fitted.prepared.steps)
        except WorkersLostError:
            raise  # worth another try
        except (ConfigError, TrainingError) as error:
            folder.write(DIAGNOSIS, str(error).encode())
            raise


def _begin(
    store: Store, sweep: SweepConfig, label: str, trial: Mapping[str, Any], pointer: Pointer | None
) -> RunConfig:
    """The run to train: the trial's own, or one that goes on from what the trial is to be a copy of."""
    if pointer is None:
        return _from_nothing(store, sweep, label, trial)
    if pointer.label == label and pointer.values == trial["values"]:
        return trial_config(store, sweep, pointer.run, trial)
    run = trial_config(store, sweep, f"{sweep.name}-{label}-{pointer.fork_digest(trial['values'])}", trial)
    before = trial_config(store, sweep, pointer.run, {**trial, "values": pointer.values})
    target = store / RUNS / run.name
    fork(store / RUNS / pointer.run, pointer.step, target, shift=scale_shift(before, run))
    pointer.keep(target)
    return run


def _from_nothing(store: Store, sweep: SweepConfig, label: str, trial: Mapping[str, Any]) -> RunConfig:
    """The trial's first run; a copy of a trial that had saved nothing yet begins at the beginning, as another run."""
    run = trial_config(store, sweep, f"{sweep.name}-{label}", trial)
    if sweep.scheduler.kind == "pbt" and (store / RUNS / run.name).exists(CONFIG):
        saved = load_yaml((store / RUNS / run.name).read_text(CONFIG), run.name)
        if saved != run.model_dump(mode="json"):
            digest = Pointer(label, run.name, 0, 0, {}).fork_digest(trial["values"])
            return trial_config(store, sweep, f"{run.name}-{digest}", trial)
    return run


def trial_config(store: Store, sweep: SweepConfig, name: str, trial: Mapping[str, Any]) -> RunConfig:
    """The complete configuration of a trial's run.

    Raises:
        ConfigError: its values do not go together.
    """
    tree = sweep.trial_tree(trial["values"])
    tree |= {"name": name, "storage": (store / RUNS).uri, "seed": tree["seed"] + trial["repeat"]}
    tree["registry"] = sweep.run.registry_uri
    if sweep.scheduler.kind == "pbt":
        # Whatever is copied must still be there.
        every = tree["evaluation"]["every_steps"]
        tree["checkpoint"] = {**tree["checkpoint"], "every_steps": every, "keep_every": every}
    return validated(RunConfig, tree)


def _fail_again(folder: Store) -> None:
    """Ray Tune tries every failure again; settings that cannot be trained with need no second try."""
    try:
        diagnosis = folder.read_text(DIAGNOSIS)
    except NotFoundError:
        return
    raise TrainingError(diagnosis)
