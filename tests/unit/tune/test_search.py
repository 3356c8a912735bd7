"""How configurations are chosen, changed and given up: Optuna, population-based training, the schedulers' settings."""

import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, PopulationBasedTraining

from raylens.config import validated
from raylens.errors import ConfigError
from raylens.tune import Domain, SweepConfig
from raylens.tune.results import ranked
from raylens.tune.search.schedulers import Perturb, perturbed, scheduler_of
from raylens.tune.search.searchers import tpe
from raylens.tune.space import Space
from raylens.tune.trials import TrialEvaluation, TrialRecord
from raylens.workloads.recipes.sweeps import SWEEPS

RUN = SWEEPS["digits"]().run  # batches of 128, evaluated every 10 steps
LR = {"optim.peak_lr": {"log_uniform": [1e-4, 1e-1]}}


def sweep(**others: Any) -> SweepConfig:
    return validated(SweepConfig, {"name": "s", "run": RUN.model_dump(mode="json"), "space": LR, **others})


def test_a_copy_has_each_number_times_one_of_two_factors_within_its_range() -> None:
    space = Space(
        {
            "optim.peak_lr": Domain(log_uniform=(1e-3, 1e-2)),
            "optim.schedule.warmup_steps": Domain(integer=(10, 20)),
            "objective.learn_scale": Domain(choice=[True, False]),
            "objective.max_logit_scale": Domain(choice=[100.0, 200.0], when={"objective.learn_scale": [True]}),
        }
    )
    draw, seen, kinds = random.Random(1), set(), set()
    before = {"optim.peak_lr": 5e-3, "optim.schedule.warmup_steps": 19, "objective.learn_scale": False}
    for _ in range(200):
        after = perturbed(space, before, (0.8, 1.25), draw)
        seen.add((round(after["optim.peak_lr"], 6), after["optim.schedule.warmup_steps"]))
        assert ("objective.max_logit_scale" in after) == after["objective.learn_scale"]
        kinds.add(after["objective.learn_scale"])
    assert seen == {(0.004, 15), (0.004, 20), (0.00625, 15), (0.00625, 20)}
    assert kinds == {True, False}


def test_the_change_of_a_copy_survives_pickle_and_leaves_the_rest() -> None:
    perturb = pickle.loads(pickle.dumps(Perturb(Space({"optim.peak_lr": Domain(uniform=(0, 1))}), (0.5, 0.5), 0)))
    config = {"trial": {"number": 3, "repeat": 0, "values": {"optim.peak_lr": 0.5}}}
    assert perturb(config) == {"trial": {"number": 3, "repeat": 0, "values": {"optim.peak_lr": 0.25}}}
    assert config["trial"]["values"] == {"optim.peak_lr": 0.5}


def test_rungs_are_in_samples_and_the_last_leaves_most_of_the_run() -> None:
    asha = scheduler_of(sweep(), Space({}), steps=91)
    assert isinstance(asha, AsyncHyperBandScheduler)
    rungs = sorted(rung[0] for rung in asha._brackets[0]._rungs)
    assert rungs == [10 * 128, 30 * 128]
    by_steps = scheduler_of(sweep(scheduler={"by": "steps", "first": 20, "reduction": 2}), Space({}), steps=100)
    assert sorted(rung[0] for rung in by_steps._brackets[0]._rungs) == [20, 40]
    assert not asha._stop_last_trials


SETS = {"frank": "data/frank", "loss": "data/loss"}
"""Labelled sets whose names look like those of metrics that are better where they are lower."""


def named(name: str, kind: str = "asha", **others: Any) -> SweepConfig:
    run = RUN.model_dump(mode="json")
    run["evaluation"] |= {"pairs": "data/pairs", "zero_shot": SETS}
    return sweep(run=run, metric=name, scheduler={"kind": kind}, **others)


@pytest.mark.parametrize(
    ("metric", "goal", "best"),
    [("zero_shot_frank", "max", 1), ("zero_shot_loss", "max", 1), ("validation_loss", "min", 0)],
)
def test_a_sweep_goes_where_its_metric_is_better_whatever_a_set_is_called(metric: str, goal: str, best: int) -> None:
    config = named(metric)
    assert config.goal == goal
    schedulers = [scheduler_of(named(metric, kind), Space({}), steps=91) for kind in ("asha", "median", "pbt")]
    assert [scheduler.metric for scheduler in schedulers] == [metric] * 3
    sign = 1.0 if goal == "max" else -1.0
    assert schedulers[0]._metric_op == schedulers[2]._metric_op == sign
    searcher = tpe(named(metric, search={"kind": "tpe"}), Space(config.space))
    assert searcher._ot_study.direction.name == {"max": "MAXIMIZE", "min": "MINIMIZE"}[goal]
    trials = [
        TrialRecord(
            number=number,
            values={},
            state="finished",
            curve=[TrialEvaluation(step=1, samples=128, seconds=1.0, metrics={metric: value})],
        )
        for number, value in enumerate((0.2, 0.4, 0.3))
    ]
    assert ranked(trials, config.metric, config.goal)[0].number == best


def test_a_metric_that_is_not_measured_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match=r"metric = 'frank' .*validation_loss.*zero_shot_frank, zero_shot_loss"):
        named("frank")


def test_a_run_that_is_hardly_evaluated_cannot_be_stopped_early() -> None:
    with pytest.raises(ConfigError, match="evaluated 2 times, too seldom"):
        scheduler_of(sweep(), Space({}), steps=20)
    with pytest.raises(ConfigError, match=r"scheduler\.first = 99999 samples"):
        scheduler_of(sweep(scheduler={"first": 99_999}), Space({}), steps=91)
    scheduler_of(sweep(scheduler={"kind": "fifo"}), Space({}), steps=20)


def test_population_based_training_looks_at_whole_evaluations() -> None:
    pbt = scheduler_of(sweep(scheduler={"kind": "pbt"}), Space({}), steps=91)
    assert isinstance(pbt, PopulationBasedTraining)
    assert (pbt._burn_in_period, pbt._perturbation_interval) == (20 * 128, 10 * 128)


class FakeTrials:
    """Asks a searcher as Ray Tune does, and tells it a known function's value."""

    def __init__(self, searcher: Any) -> None:
        self.searcher, self.values = searcher, {}  # type: ignore[var-annotated]

    def run(self, ids: list[str], value: Any) -> None:
        for trial_id in ids:
            trial = self.searcher.suggest(trial_id)["trial"]
            self.values[trial_id] = trial
            self.searcher.on_trial_result(trial_id, {"training_iteration": 1})
            self.searcher.on_trial_complete(trial_id, {"zero_shot_digits": value(trial["values"])})


def accuracy(values: dict[str, Any]) -> float:
    """Best at 1e-2."""
    from math import log10

    return -abs(log10(values["optim.peak_lr"]) + 2)


def test_tpe_learns_where_the_good_values_are() -> None:
    trials = FakeTrials(tpe(sweep(metric="zero_shot_digits", search={"kind": "tpe"}), Space(sweep().space)))
    trials.run([f"t{number}" for number in range(40)], accuracy)
    numbers = [trial["number"] for trial in trials.values.values()]
    assert numbers == list(range(40))
    found = [accuracy(trial["values"]) for trial in trials.values.values()]
    # Random draws are 0.83 away on average.
    assert sum(found[-20:]) / 20 > -0.5


def test_tpe_goes_on_from_what_was_saved(tmp_path: Path) -> None:
    config = sweep(metric="zero_shot_digits", search={"kind": "tpe"}, repeats=2)
    trials = FakeTrials(tpe(config, Space(config.space)))
    trials.run(["a", "b", "c"], accuracy)
    assert trials.values["a"]["values"] == trials.values["b"]["values"] != trials.values["c"]["values"]
    assert [trials.values[one]["repeat"] for one in "abc"] == [0, 1, 0]
    trials.searcher.save(str(tmp_path / "state"))
    again = FakeTrials(tpe(config, Space(config.space)))
    again.searcher.restore(str(tmp_path / "state"))
    again.run(["d", "e"], accuracy)
    assert again.values["d"] == {**trials.values["c"], "repeat": 1}
    assert again.values["e"]["number"] == 2
    assert [trial.state.name for trial in again.searcher._ot_study.trials] == ["COMPLETE", "COMPLETE", "RUNNING"]


def test_tpe_is_told_the_mean_of_the_repeats_and_of_failures_nothing() -> None:
    config = sweep(metric="zero_shot_digits", search={"kind": "tpe"}, repeats=2)
    searcher = tpe(config, Space(config.space))
    for trial_id, value in (("a", 0.2), ("b", 0.6), ("c", 0.9), ("d", None), ("e", None), ("f", None)):
        searcher.suggest(trial_id)
        result = None if value is None else {"zero_shot_digits": value}
        searcher.on_trial_complete(trial_id, result, error=value is None)
    told = [(trial.state.name, trial.value) for trial in searcher._ot_study.trials]
    assert told == [("COMPLETE", pytest.approx(0.4)), ("COMPLETE", 0.9), ("FAIL", None)]


def test_tpe_knows_conditions_and_values_that_are_no_numbers() -> None:
    space = Space(
        {
            "optim.schedule": Domain(choice=[{"kind": "linear"}, {"kind": "constant"}]),
            "towers.lock_image": Domain(choice=[True, False]),
            "optim.layer_decay": Domain(uniform=(0.5, 1.0), when={"towers.lock_image": [False]}),
            "optim.groups.text.lr_factor": Domain(log_integer=(1, 8)),
        }
    )
    searcher = tpe(sweep(search={"kind": "tpe"}), space)
    for number in range(20):
        values = searcher.suggest(str(number))["trial"]["values"]
        assert values["optim.schedule"] in ({"kind": "linear"}, {"kind": "constant"})
        assert ("optim.layer_decay" in values) != values["towers.lock_image"]
        assert 1 <= values["optim.groups.text.lr_factor"] <= 8
