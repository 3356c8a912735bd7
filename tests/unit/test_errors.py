"""The tree of exceptions."""

import inspect
import pickle
import re

import pytest

from raylens import errors

DEFINED = {name: kind for name, kind in vars(errors).items() if inspect.isclass(kind)}


def test_all_are_exported() -> None:
    assert sorted([*DEFINED, "message_of", "own_error"]) == errors.__all__


@pytest.mark.parametrize("kind", DEFINED.values(), ids=lambda kind: kind.__name__)
def test_the_message_survives_a_pickle(kind: type[errors.RaylensError]) -> None:
    message = "optim.peak_lr = -1: must be positive 🦔\nsecond line"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(kind(message), protocol))
        assert type(again) is kind
        assert str(again) == message
        assert again.args == (message,)


def test_the_docstring_draws_the_real_tree() -> None:
    """Depth is the indentation; a line's parent is the last line above it that stands less deep."""
    drawn: dict[str, str] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"[ │├└─]*(\w+Error)\b", line)
        if found is None:
            continue
        name, depth = found[1], found.start(1)
        above = [(indent, parent) for indent, parent in above if indent < depth]
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((depth, name))
    assert drawn == {name: kind.__mro__[1].__name__ for name, kind in DEFINED.items()}


def test_every_error_is_documented() -> None:
    assert [name for name, kind in DEFINED.items() if not kind.__doc__] == []


class WrappingError(Exception):
    """As frameworks do it: the real one is an attribute."""

    def __init__(self, inner: BaseException) -> None:
        super().__init__("Traceback (most recent call last): ...")
        self.cause = inner


class ClaimingError(WrappingError, errors.UnreachableError):
    """Claims the class of what it wraps, and has a traceback for a message."""


def test_own_error_finds_the_innermost() -> None:
    own = errors.UnreachableError("cannot read x")
    assert errors.own_error(own) is own
    assert errors.own_error(WrappingError(WrappingError(own))) is own
    assert errors.own_error(ClaimingError(own)) is own
    assert errors.own_error(WrappingError(ValueError("not ours"))) is None
    assert errors.own_error(None) is None
    outer = errors.TrainingError("step 3 failed")
    outer.__cause__ = own
    assert errors.own_error(outer) is outer, "what we raised ourselves says more than its cause"
    advised = errors.own_error(WrappingError(errors.NotFoundError("no such object\nTo change retries ...")))
    assert repr(advised) == "NotFoundError('no such object')"
    circle = WrappingError(ValueError("x"))
    circle.cause = circle
    assert errors.own_error(circle) is None
