"""A sweep on a Ray cluster, from its settings to the best configuration."""

import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune

from raylens.capacity import Ask, Node, live_nodes, possible_nodes
from raylens.config import RunConfig
from raylens.config.placement import Placement
from raylens.data.build_plan import build_plan
from raylens.extras import require_extra
from raylens.interrupts import Interrupts, signal_handlers
from raylens.messages import Say, print_line
from raylens.storage import Store
from raylens.train.ray.resources import check_resources, placement_of, resource_requests
from raylens.train.run.data_lock import load_manifests
from raylens.tune.best import write_best
from raylens.tune.config import SweepConfig
from raylens.tune.monitor import Ends, Listens, Watch, watch_with
from raylens.tune.paths import REPORT, RUNS, TUNE, claim, sweep_store
from raylens.tune.report import render_report
from raylens.tune.results import Configuration, ranked
from raylens.tune.search.candidates import points, trials_of
from raylens.tune.search.schedulers import scheduler_of
from raylens.tune.space import Space
from raylens.tune.trial import Trial
from raylens.tune.trials import SweepRecord, name_of, sweep_so_far

__all__ = ["GUESSED_STEPS", "SweepResult", "concurrency", "sweep"]

GUESSED_STEPS = 10_000
"""Of a run, as long as its data were not looked at: enough to see whether a space is possible."""

TUNE_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Places in a configuration are relative to where the command was started.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A run that came to nothing has evaluations without the metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_SLOW_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "600",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


@dataclass(frozen=True)
class SweepResult:
    """What came of a sweep."""

    uri: str
    record: SweepRecord
    best: Configuration | None
    """None if no trial has a value."""


def sweep(
    config: SweepConfig,
    *,
    say: Say = print_line,
    tell: Callable[[SweepRecord], None] | None = None,
) -> SweepResult:
    """Run trials until all are done or the budget is used up. Ray must be initialised.

    The same call again goes on where it was interrupted, whatever ended it.

    Args:
        config: the sweep.
        say: is given one line for each phase.
        tell: is given the record whenever something changed.

    Raises:
        ConfigError: the space is impossible; names the key.
        MissingExtraError: ``raylens[train]`` is not installed.
        KeyboardInterrupt: it was interrupted; what was trained stays, and the same call goes on.
        RaylensError: bad input, or a cluster too small.
    """
    require_extra("train", "a sweep")
    config.check(GUESSED_STEPS)
    check_resources(config.run, say)
    store = sweep_store(config)
    claim(store, config)
    record = sweep_so_far(store)
    if record.state in ("finished", "stopped"):
        say(f"nothing left to do: the sweep {record.state}{f' ({record.why})' if record.why else ''}")
        return _result(store, config, record)
    steps = _steps_of(config.run, store, say)
    space = config.check(steps)
    record = record.model_copy(update={"state": "running", "run_samples": steps * config.run.global_batch})
    watch = Watch(store, config, record, tell or (lambda _: None))
    _quiet_tune()
    tuner = _tuner(store, config, space, steps, watch, say)
    interrupts = Interrupts(say, "the sweep's state is saved")
    interrupts.stop = lambda: signal.raise_signal(signal.SIGUSR1)
    # Ray Tune saves and ends at a SIGUSR1. Until it listens for one, that would end the process.
    with signal_handlers({signal.SIGUSR1: signal.SIG_IGN}), interrupts, warnings.catch_warnings():
        # A copy is a run of its own, in a process of its own.
        warnings.filterwarnings("ignore", "Consider boosting PBT performance", UserWarning)
        tuner.fit()
    return _end(store, config, watch, interrupts.count > 0, say)


def _quiet_tune() -> None:
    """Ray Tune's own tables are for its own users, and what its loggers say stands in the record."""
    os.environ.update(TUNE_SETTINGS)
    for name in ("ray.tune", "ray.air", "ray.train"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _end(store: Store, config: SweepConfig, watch: Watch, interrupted: bool, say: Say) -> SweepResult:
    why = watch.why_end
    if interrupted and not why:
        watch.write(state="interrupted", why="")
        _write_report(store, config, watch.record)
        say(f"interrupted; the same command goes on, as does `raylens sweep resume {store.describe()}`")
        raise KeyboardInterrupt
    watch.write(state="stopped" if why else "finished", why=why)
    if why:
        say(f"ended: {why}")
    return _result(store, config, watch.record)


def _result(store: Store, config: SweepConfig, record: SweepRecord) -> SweepResult:
    _write_report(store, config, record)
    write_best(store, config, record)
    order = ranked(record.trials, config.metric, config.goal)
    return SweepResult(store.uri, record, order[0] if order else None)


def _write_report(store: Store, config: SweepConfig, record: SweepRecord) -> None:
    """The page of a sweep as it is."""
    store.write(REPORT, render_report(config, record).encode())


def _steps_of(run: RunConfig, store: Store, say: Say) -> int:
    """Of a run of the base configuration; indexes its data once for all trials.

    Raises:
        ManifestError: there are no shards, or none is usable.
    """
    manifests = load_manifests(store, run.data.train, store / RUNS / "manifests", say)
    plan = build_plan(run, manifests)
    return run.length.steps(sum(order.epoch_size for order in plan.orders), run.global_batch)


def concurrency(run: RunConfig, nodes: Sequence[Node], placement: Placement) -> int:
    """How many trials a cluster has room for: each has its workers, and a CPU to read data.

    Args:
        run: of the trials.
        nodes: those that the cluster has or may get.
        placement: the groups that they are of.
    """
    workers, data = resource_requests(run, placement)
    count = run.scale.workers
    gpus, data_cpus = count * workers.each["GPU"], data.each["CPU"]
    have = _sums(nodes, workers)
    rooms = [have["GPU"] // gpus] if gpus else []
    if data.selector == workers.selector:
        rooms.append(have["CPU"] // (count * workers.each["CPU"] + data_cpus))
    else:
        rooms += [have["CPU"] // (count * workers.each["CPU"]), _sums(nodes, data)["CPU"] // data_cpus]
    return max(1, int(min(rooms)))


def _sums(nodes: Sequence[Node], ask: Ask) -> dict[str, float]:
    """Resources of the nodes that something may be on."""
    own = [node for node in nodes if ask.allows(node.labels)]
    return {name: sum(node.count * node.resources.get(name, 0.0) for node in own) for name in ("CPU", "GPU")}


def _tuner(store: Store, config: SweepConfig, space: Space, steps: int, watch: Watch, say: Say) -> Any:
    filesystem, path = store.arrow()
    placement = placement_of(config.run)
    # A trial's own process computes nothing, and must take no CPU from a worker that needs all of a node's.
    beside = placement.selector("decode")
    asked = tune.PlacementGroupFactory([{"CPU": 0.001}], **({"bundle_label_selector": [beside]} if beside else {}))
    trainable = tune.with_resources(Trial, asked)
    place = f"{path}/{TUNE}"
    watch_with(watch)
    if tune.Tuner.can_restore(place, storage_filesystem=filesystem):
        say("going on with the sweep")
        return tune.Tuner.restore(place, trainable, storage_filesystem=filesystem)
    store.delete_tree(TUNE)  # of a start that ended before Ray Tune wrote down anything
    param_space, search = _search(config, space, store.uri)
    at_a_time = config.concurrent or concurrency(config.run, possible_nodes(live_nodes()), placement)
    say(
        f"{_count(param_space, config)} trials, {at_a_time} at a time, of {steps} steps unless the space says otherwise"
    )
    return tune.Tuner(
        trainable,
        param_space=param_space,
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=scheduler_of(config, space, steps),
            num_samples=1 if search is None else config.budget.trials * config.repeats,
            max_concurrent_trials=at_a_time,
            trial_name_creator=_trial_name,
            trial_dirname_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=TUNE,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=tune.FailureConfig(max_failures=config.retries),
            callbacks=[Listens()],
            stop=Ends(),
            verbose=0,
        ),
    )


def _search(config: SweepConfig, space: Space, uri: str) -> tuple[dict[str, Any], Any]:
    """What Ray Tune is given: all configurations, or something that chooses them."""
    if config.search.kind == "tpe":
        from raylens.tune.search.searchers import tpe

        return {}, tpe(config, space, uri)
    return {"sweep": uri, "trial": tune.grid_search(trials_of(config, points(config, space)))}, None


def _count(param_space: dict[str, Any], config: SweepConfig) -> int:
    if not param_space:
        return config.budget.trials * config.repeats
    return len(param_space["trial"]["grid_search"])


def _trial_name(trial: Any) -> str:
    """Of Ray Tune's trial, for good: as `TrialRecord.name`."""
    told = trial.config["trial"]
    return name_of(told["number"], told["repeat"])
