"""The best trial: as a configuration that trains it again, and as a model in the registry."""

from raylens.config import RunConfig, dump_yaml, load_yaml, validated
from raylens.errors import CheckpointError, NotFoundError, TrainingError
from raylens.messages import Say
from raylens.registry import Registry, Version
from raylens.storage import Store
from raylens.train.checkpoint.store import Checkpoints
from raylens.train.run.prepare import prepare
from raylens.train.run.publish import publish
from raylens.train.runs.run_dir import CONFIG
from raylens.tune.config import SweepConfig
from raylens.tune.paths import BEST, RUNS
from raylens.tune.results import Configuration, ranked
from raylens.tune.trials import SweepRecord, TrialRecord

__all__ = ["best_of", "promote", "write_best"]


def best_of(config: SweepConfig, record: SweepRecord) -> Configuration:
    """The best configuration.

    Raises:
        NotFoundError: no trial has a value of the metric.
    """
    order = ranked(record.trials, config.metric)
    if not order:
        raise NotFoundError(
            f"sweep {config.name!r} has no trial with a value of {config.metric} yet: {len(record.trials)} trials, "
            f"{', '.join(f'{count} {state}' for state, count in record.counts().items()) or 'none begun'}"
        )
    return order[0]


def write_best(store: Store, config: SweepConfig, record: SweepRecord) -> None:
    """Write ``best.yaml``: the best trial's complete configuration, under another name; nothing if there is none.

    It trains the same again, to the last bit on a CPU: the micro-batch, which would otherwise be chosen by the memory
    at hand, is the one that the trial had.
    """
    if not ranked(record.trials, config.metric):
        return
    best = best_of(config, record).best_trial
    run = _config(store, best)
    changes: dict[str, object] = {"name": f"{config.name}-best", "storage": config.run.storage}
    newest = Checkpoints(store / RUNS / best.run).newest()
    if newest is not None:
        changes["resources"] = run.resources.model_copy(update={"micro_batch": newest.micro_batch})
    head = (
        f"# {best.name} of sweep {config.name}: {config.metric} {best.value(config.metric)!r} at step {_step(best)}\n"
    )
    copied = [f"# from step {one.step} on: {one.values}\n" for one in best.copies]
    if copied:
        copied.insert(0, "# Its settings changed on the way (population-based training); these are the last.\n")
    store.write(BEST, "".join([head, *copied, dump_yaml(run.model_copy(update=changes))]).encode())


def promote(store: Store, config: SweepConfig, record: SweepRecord, name: str, alias: str | None, say: Say) -> Version:
    """Register the best trial's newest checkpoint under a name, and move an alias to it.

    Raises:
        NotFoundError: no trial has a value.
        TrainingError: the best trial left no checkpoint.
    """
    configuration = best_of(config, record)
    best = configuration.best_trial
    run = _config(store, best)
    checkpoints = Checkpoints(store / RUNS / best.run)
    newest = checkpoints.newest()
    if newest is None:
        raise TrainingError(
            f"{best.name}, the best trial, was {best.state} at step {_step(best)} before it had saved anything: train "
            f"it with `raylens train {store.describe()}/{BEST}`"
        )
    if newest.step != _step(best):
        say(
            f"{best.name} was measured at step {_step(best)}, its newest checkpoint is of step {newest.step}", "warning"
        )
    lineage = {
        "sweep": store.uri,
        "trial": best.name,
        "values": best.values,
        config.metric: best.value(config.metric),
        "configurations": len({trial.number for trial in record.trials}),
    }
    version = publish(prepare(run, say), checkpoints, name=name, lineage=lineage)
    if alias is not None:
        Registry(run.registry_uri).promote(name, alias, version.number)
    return version


def _config(store: Store, trial: TrialRecord) -> RunConfig:
    folder = store / RUNS / trial.run
    try:
        text = folder.read_text(CONFIG)
    except NotFoundError:
        raise CheckpointError(f"{trial.name}'s run is gone: there is no {folder.describe()}/{CONFIG}") from None
    return validated(RunConfig, load_yaml(text, f"{folder.describe()}/{CONFIG}"))


def _step(trial: TrialRecord) -> int:
    return trial.last.step if trial.last else 0
