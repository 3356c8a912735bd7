"""Metrics and which of their directions is better."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.config import EvaluationConfig, ObjectiveConfig
from raylens.evaluate.metrics import Goal, Metric, cost, goal_of
from raylens.report.numbers import finite
from raylens.train.evaluation.metrics import Rows, pair_metrics

DECLARED = EvaluationConfig.model_validate(
    {"pairs": "data/pairs", "zero_shot": {"frank": "data/a", "loss": "data/b", "rank_error": "data/c"}}
).metrics(retrieval=True)


def test_every_labelled_set_is_better_where_it_is_higher() -> None:
    assert {name: goal for name, goal in DECLARED.items() if goal == "min"} == {"validation_loss": "min"}
    assert {"zero_shot_frank", "zero_shot_loss", "zero_shot_rank_error"} < DECLARED.keys()


def test_the_evaluator_yields_what_is_declared() -> None:
    unit_ND, key_N = np.eye(4, dtype=np.float32), np.arange(4)
    rows = Rows(tuple((0, at) for at in range(4)), {"image": unit_ND, "text": unit_ND, "text_key": key_N})
    yielded = pair_metrics(rows, ObjectiveConfig(), 2.0, None, 4)
    declared = EvaluationConfig.model_validate({"pairs": "data/pairs"}).metrics(retrieval=True)
    assert {metric.name: metric.goal for metric in yielded} == declared


def test_what_was_written_without_goals_has_those_of_today() -> None:
    assert {name: goal_of(name, None) for name in DECLARED} == DECLARED
    assert {name: goal_of(name, {}) for name in DECLARED} == DECLARED


@pytest.mark.parametrize("name", ["loss", "frank", "my_validation_loss", "validation_loss_2", "recall_1", "zero_shot"])
def test_no_part_of_a_name_is_guessed_from(name: str) -> None:
    assert goal_of(name, None) is None
    assert goal_of(name, {"other": "max"}) is None
    assert goal_of(name, {name: "max"}) == "max"
    assert goal_of(name, {name: "min"}) == "min"


@pytest.mark.parametrize("goals", ["min", ["min"], {"validation_loss": "down"}, {"validation_loss": 1}])
def test_goals_that_are_none_are_not_read_as_one(goals: object) -> None:
    assert goal_of("validation_loss", goals) in ((None,) if isinstance(goals, dict) else ("min",))


@given(st.lists(st.floats(-1e3, 1e3), min_size=1), st.sampled_from(["max", "min"]))
def test_the_best_has_the_lowest_cost(values: list[float], goal: Goal) -> None:
    best = min((Metric("m", value, goal) for value in values), key=lambda metric: metric.cost)
    assert best.value == (max if goal == "max" else min)(values)
    assert best.cost == cost(best.value, goal)


def test_numbers_that_cannot_be_drawn_are_none() -> None:
    odd = (None, True, "1", math.nan, math.inf, -math.inf, 1e101, 10**400)
    assert [finite(value) for value in odd] == [None] * len(odd)
    assert [finite(value) for value in (0, -2, 1.5, 1e99)] == [0.0, -2.0, 1.5, 1e99]
