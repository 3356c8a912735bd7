"""The best trial: as a configuration that trains it again, and as a model in the registry."""

from raylens.config import RunConfig, dump_yaml, load_yaml, validated
from raylens.errors import CheckpointError, NotFoundError, TrainingError
from raylens.messages import Say, warning
from raylens.registry import Registry, Selection, Version
from raylens.storage import Store
from raylens.train.checkpoint import Checkpoints
from raylens.train.run.prepare import prepare
from raylens.train.run.publish import publish
from raylens.train.runs import CONFIG
from raylens.tune.config import SweepConfig
from raylens.tune.paths import BEST, RUNS
from raylens.tune.results import Configuration, ranked
from raylens.tune.trials import SweepRecord, TrialRecord

__all__ = ["best_of", "promote", "write_best"]


def best_of(config: SweepConfig, record: SweepRecord) -> Configuration:
    """Return the best configuration of a sweep.

    Raises:
        NotFoundError: no trial has a value of the metric.
    """
    order = ranked(record.trials, config.metric, config.goal)
    if not order:
        raise NotFoundError(
            f"sweep {config.name!r} has no trial with a value of {config.metric} yet: {len(record.trials)} trials, "
            f"{', '.join(f'{count} {state}' for state, count in record.counts().items()) or 'none started'}"
        )
    return order[0]


def write_best(store: Store, config: SweepConfig, record: SweepRecord) -> None:
    """Write ``best.yaml``, the complete configuration of the best trial under another name, if there is one.

    It repeats the training of the trial, to the last bit on a CPU: it fixes the micro-batch of the trial, which would
    otherwise depend on the available memory.
    """
    if not ranked(record.trials, config.metric, config.goal):
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
    copied = [f"# from step {copy.step} on: {copy.values}\n" for copy in best.copies]
    if copied:
        copied.insert(0, "# Its settings changed during training (population-based training); these are the last.\n")
    store.write(BEST, "".join([head, *copied, dump_yaml(run.model_copy(update=changes))]).encode())


def promote(store: Store, config: SweepConfig, record: SweepRecord, name: str, alias: str | None, say: Say) -> Version:
    """Register the best trial's newest checkpoint under a name, and move an alias to it.

    Raises:
        NotFoundError: no trial has a value of the metric.
        TrainingError: the best trial saved no checkpoint.
    """
    configuration = best_of(config, record)
    best = configuration.best_trial
    run = _config(store, best)
    checkpoints = Checkpoints(store / RUNS / best.run)
    newest = checkpoints.newest()
    if newest is None:
        raise TrainingError(
            f"{best.name}, the best trial, was {best.state} at step {_step(best)} before it saved a checkpoint: train "
            f"it with `raylens train {store.describe()}/{BEST}`"
        )
    if newest.step != _step(best):
        say(warning(f"{best.name} was measured at step {_step(best)}, its newest checkpoint is of step {newest.step}"))
    selection = Selection(
        sweep=store.uri,
        trial=best.name,
        values=best.values,
        metric=config.metric,
        goal=config.goal,
        value=best.value(config.metric),
        configurations=len({trial.number for trial in record.trials}),
    )
    version = publish(prepare(run, say), checkpoints, name=name, selection=selection)
    if alias is not None:
        Registry(run.registry_uri).promote(name, alias, version.number)
    return version


def _config(store: Store, trial: TrialRecord) -> RunConfig:
    folder = store / RUNS / trial.run
    try:
        text = folder.read_text(CONFIG)
    except NotFoundError:
        raise CheckpointError(
            f"{trial.name}'s run has been removed: {folder.describe()}/{CONFIG} does not exist"
        ) from None
    return validated(RunConfig, load_yaml(text, f"{folder.describe()}/{CONFIG}"))


def _step(trial: TrialRecord) -> int:
    return trial.last.step if trial.last else 0
