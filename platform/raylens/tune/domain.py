"""What one key of a configuration may be: a range or a list of values, and when it is searched at all."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from raylens.config import Node

__all__ = ["Domain", "Value", "from_list"]

Value = Any
"""Plain: a number, a text, a switch, null, or keys and values."""

RANGES = ("uniform", "log_uniform", "integer", "log_integer")
GOLDEN = 0.381966
"""A place inside a range that no round number hides: where a whole number is needed, it is none."""


class Domain(Node):
    """Exactly one range or list of values."""

    uniform: tuple[float, float] | None = None
    """Any number from the first to the second, all as likely."""
    log_uniform: tuple[float, float] | None = None
    """Likewise of the logarithm: as many draws from 1e-4 to 1e-3 as from 1e-3 to 1e-2."""
    integer: tuple[int, int] | None = None
    """A whole number, both ends included."""
    log_integer: tuple[int, int] | None = None
    choice: Annotated[list[Value], Field(min_length=1)] | None = None
    """One of these."""
    grid_points: Annotated[int, Field(ge=2, le=1000)] = 5
    """Of a range, so many values are in a grid, evenly spaced, or evenly on a logarithm."""
    when: dict[str, list[Value]] = {}  # noqa: RUF012 (pydantic copies it)
    """Searched only where each of these keys, searched as well, has one of its values; else it stays as it is."""

    @model_validator(mode="before")
    @classmethod
    def _single_conditions(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("when"), Mapping):
            when = {key: one if isinstance(one, list) else [one] for key, one in values["when"].items()}
            return {**values, "when": when}
        return values

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        given = [name for name in (*RANGES, "choice") if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join((*RANGES, "choice"))
            raise ValueError(f"give exactly one of {names}; now there is {' and '.join(given) or 'none'}")
        if self.span is not None:
            self._check_range(given[0], *self.span)
        elif any(one in self.values[:at] for at, one in enumerate(self.values)):
            raise ValueError(f"choice = {self.values} has a value twice: leave one out")
        return self

    def _check_range(self, kind: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{kind} = [{low:g}, {high:g}] is reversed: write [{high:g}, {low:g}]")
        if low == high:
            raise ValueError(
                f"{kind} = [{low:g}, {high:g}] is empty: set the key itself to {low:g}, or widen the range"
            )
        if self.logarithmic and low <= 0:
            raise ValueError(f"{kind} = [{low:g}, {high:g}]: a logarithmic range begins above 0")

    @property
    def span(self) -> tuple[float, float] | None:
        """Both ends of a range; None for a list of values."""
        return next((found for name in RANGES if (found := getattr(self, name)) is not None), None)

    @property
    def logarithmic(self) -> bool:
        """Whether distances are ratios."""
        return self.log_uniform is not None or self.log_integer is not None

    @property
    def whole(self) -> bool:
        """Whether a range has whole numbers only."""
        return self.integer is not None or self.log_integer is not None

    @property
    def values(self) -> list[Value]:
        """Of a list; a range has none."""
        return self.choice or []

    @property
    def probes(self) -> list[Value]:
        """Values that show whether a configuration takes all of them: the list, or both ends and one inside."""
        if self.span is None:
            return self.values
        return list(dict.fromkeys([self.span[0], self.span[1], self.at(GOLDEN)]))

    @property
    def grid(self) -> list[Value]:
        """The list, or evenly spaced values of a range."""
        if self.span is None:
            return self.values
        return list(dict.fromkeys(self.at(place / (self.grid_points - 1)) for place in range(self.grid_points)))

    def at(self, share: float) -> Value:
        """The value at a place from 0 to 1 of the range or the list."""
        if self.span is None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.span
        if self.whole:
            # Each whole number is as likely as its share of the range that is half a step longer on both sides.
            low, high = low - 0.5, high + 0.5
            low = max(low, 0.5) if self.logarithmic else low
        if self.logarithmic:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return self._inside(value)

    def fraction_of(self, value: float) -> float:
        """Where a number is in a range, from 0 to 1."""
        assert self.span is not None
        low, high = self.span
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def scaled(self, value: float, factor: float) -> Value:
        """A number times a factor, kept within the range."""
        return self._inside(value * factor)

    def _inside(self, value: float) -> Value:
        assert self.span is not None
        low, high = self.span
        kept = min(max(value, low), high)
        return round(kept) if self.whole else kept


def from_list(domain: object) -> object:
    """A bare list is a choice."""
    return {"choice": domain} if isinstance(domain, list) else domain
