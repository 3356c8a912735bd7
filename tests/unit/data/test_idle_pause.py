"""When the executor's loop rests, without Ray: the rule alone."""

import ast
import itertools
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from raylens.data.idle_pause import FIRST_SECONDS, GROWTH, LONGEST_SECONDS, WAITED_SECONDS, WANTED_SECONDS, Pacer

SHORT = WAITED_SECONDS / 100
PLATFORM = Path(__file__).parents[3] / "platform" / "raylens"
TURN = st.tuples(st.booleans(), st.floats(0, 0.2), st.booleans())


def test_a_turn_that_did_something_is_followed_at_once() -> None:
    pacer = Pacer()
    assert [pacer.pause(done, SHORT, wanted=False) for done in range(5)] == [0.0] * 5


def test_idle_turns_are_further_and_further_apart_and_begin_anew_after_work() -> None:
    pacer = Pacer()
    pacer.pause("a", SHORT, wanted=False)
    pauses = [pacer.pause("a", SHORT, wanted=False) for _ in range(20)]
    assert pauses[0] == FIRST_SECONDS
    assert all(later == min(GROWTH * earlier, LONGEST_SECONDS) for earlier, later in itertools.pairwise(pauses))
    assert pauses[-1] == LONGEST_SECONDS
    assert pacer.pause("b", SHORT, wanted=False) == 0.0
    assert pacer.pause("b", SHORT, wanted=False) == FIRST_SECONDS


def test_a_turn_that_waited_for_running_tasks_needs_no_pause() -> None:
    pacer = Pacer()
    pacer.pause("a", SHORT, wanted=False)
    assert pacer.pause("a", WAITED_SECONDS, wanted=False) == 0.0
    assert pacer.pause("a", SHORT, wanted=False) == FIRST_SECONDS


def test_somebody_who_waits_waits_no_longer_than_the_short_pause() -> None:
    pacer = Pacer()
    pauses = [pacer.pause("a", SHORT, wanted=True) for _ in range(20)]
    assert max(pauses) == WANTED_SECONDS
    assert pacer.pause("a", SHORT, wanted=False) == LONGEST_SECONDS


@given(st.lists(TURN))
def test_what_nobody_announces_is_seen_within_a_few_times_what_it_took(turns: list[tuple[bool, float, bool]]) -> None:
    """A pause is never much longer than all of the idle time before it and the first pause, whatever happens."""
    pacer, done, idle = Pacer(), 0, 0.0
    pacer.pause(done, 0.0, wanted=False)
    for works, seconds, wanted in turns:
        done += works
        pause = pacer.pause(done, seconds, wanted=wanted)
        idle = 0.0 if works else idle + seconds
        assert 0.0 <= pause <= LONGEST_SECONDS
        assert pause <= (GROWTH - 1) * idle + FIRST_SECONDS * (1 + 1e-9) or wanted
        assert not (works and pause)
        idle += pause


def test_every_data_set_of_ray_is_made_where_it_is_told_to_rest() -> None:
    """Another place that makes or executes one would bring the spinning back."""
    makers = set()
    for path in PLATFORM.parents[1].glob("*/raylens/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name == "ray.data" for name in names):
                makers.add(path.relative_to(PLATFORM).as_posix())
    assert makers == {"data/idle_pause.py", "data/stream.py", "data/block_source.py"}
