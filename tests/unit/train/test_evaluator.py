"""When a run is evaluated, and that nobody waits for figures but who asks for them."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from raylens.config import RunConfig, apply_overrides, validated
from raylens.evaluate.metrics import Metric
from raylens.inputs import Preprocess
from raylens.train.evaluation.eval_data import EvalData
from raylens.train.evaluation.eval_sets import EvalSets
from raylens.train.evaluation.evaluator import Embedded, Evaluator
from tests.unit.train.test_checkpoint import Alone

STEPS = 100
TREE = {
    "name": "r",
    "data": {"train": "x"},
    "checkpoint": {"every_steps": None, "every_minutes": 5.0},
    "evaluation": {"every_steps": 30, "pairs": "held"},
}


class Control(Alone):
    workers = 1

    def gather(self, thing: object) -> list[object]:
        return [thing]


def loss_of(value: float) -> Metric:
    return Metric("validation_loss", value, "min")


class Slow(Evaluator):
    """Has nothing to embed, and figures that come when a test lets them."""

    may = threading.Event()
    loss = 0.5

    def _read(self) -> EvalData:
        return EvalData(None, ())

    def _metrics(self, _: list[Embedded]) -> Iterator[Metric]:
        assert self.may.wait(60)
        yield loss_of(self.loss)

    def embed(self, step: int) -> None:
        forward: Any = None  # not looked at, where there is nothing to embed
        self.begin(step, forward, 1, torch.device("cpu"))


def evaluator(*changes: str, kind: type[Evaluator] = Slow) -> Any:
    config = validated(RunConfig, apply_overrides(TREE, changes))
    control: Any = Control()
    tokenizer: Any = None  # there is nothing to embed
    return kind(config, EvalSets("held", 2), tokenizer, Preprocess(size=8), control, steps=STEPS)


@pytest.mark.parametrize("keep_best", [0, 1])
def test_every_checkpoint_that_is_compared_has_figures_of_its_own(keep_best: int) -> None:
    """By the clock and before a preemption too: it is known when it is decided to save."""
    one = evaluator(f"checkpoint.keep_best={keep_best}")
    assert [step for step in range(1, STEPS + 1) if one.due(step, saving=step in (7, 41))] == sorted(
        {30, 60, 90, STEPS} | ({7, 41} if keep_best else set())
    )


def test_a_run_without_sets_is_never_evaluated() -> None:
    one = evaluator("checkpoint.keep_best=1")
    one._sets = EvalSets()
    assert not any(one.due(step, saving=True) for step in range(1, STEPS + 1))


def test_figures_are_waited_for_by_who_asks_and_nobody_else() -> None:
    one = evaluator()
    one.may = threading.Event()
    one.embed(30)
    later, of_another_step = one.later(30), one.later(31)
    assert one.poll() is None
    assert of_another_step() == ()
    found = list[tuple[Metric, ...]]()
    asking = threading.Thread(target=lambda: found.append(later()))
    asking.start()
    assert found == []
    one.may.set()
    asking.join()
    assert found == [(loss_of(0.5),)]
    finding = one.poll()
    assert (finding.step, finding.metrics) == (30, found[0])
    assert one.poll() is None


def test_figures_that_were_asked_for_stay_when_the_next_are_worked_out() -> None:
    one = evaluator()
    one.may.set()
    one.embed(30)
    first = one.later(30)
    one.loss = 0.25
    one.embed(60)
    one.wait()
    assert (first(), one.later(60)()) == ((loss_of(0.5),), (loss_of(0.25),))
    assert [one.poll().step, one.poll().step] == [30, 60]


def test_figures_that_cannot_be_worked_out_are_a_problem_and_no_metrics() -> None:
    class Broken(Slow):
        def _metrics(self, _: list[Embedded]) -> Iterator[Metric]:
            raise ZeroDivisionError("no pairs")

    one = evaluator(kind=Broken)
    one.embed(30)
    assert one.later(30)() == ()
    assert one.poll().problem == "ZeroDivisionError: no pairs"
