"""The domain of a searched key: a range or a list of values, and the condition under which it is searched."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from raylens.config import Node

__all__ = ["Domain", "Value", "from_list"]

Value = Any
"""A plain value: a number, text, boolean, null or mapping."""

RANGES = ("uniform", "log_uniform", "integer", "log_integer")
GOLDEN = 0.381966
"""The fraction of a range that is probed: the value there is not a round number, so that keys of integers refuse it."""


class Domain(Node):
    """A domain has exactly one range or list of values."""

    uniform: tuple[float, float] | None = None
    """Numbers between both ends, uniformly distributed."""
    log_uniform: tuple[float, float] | None = None
    """Numbers whose logarithm is uniform: as many draws from 1e-4 to 1e-3 as from 1e-3 to 1e-2."""
    integer: tuple[int, int] | None = None
    """Integers between both ends, which are included."""
    log_integer: tuple[int, int] | None = None
    choice: Annotated[list[Value], Field(min_length=1)] | None = None
    """A list of values to choose from."""
    grid_points: Annotated[int, Field(ge=2, le=1000)] = 5
    """Number of values of a range in a grid, evenly spaced in the range or its logarithm."""
    when: dict[str, list[Value]] = {}  # noqa: RUF012 (pydantic copies it)
    """The key is searched only if each of these searched keys has one of the listed values; else it keeps its value."""

    @model_validator(mode="before")
    @classmethod
    def _single_conditions(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("when"), Mapping):
            when = {key: allowed if isinstance(allowed, list) else [allowed] for key, allowed in values["when"].items()}
            return {**values, "when": when}
        return values

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        kinds = [name for name in (*RANGES, "choice") if getattr(self, name) is not None]
        if len(kinds) != 1:
            names = ", ".join((*RANGES, "choice"))
            raise ValueError(f"a domain has exactly one of {names}, not {' and '.join(kinds) or 'none'}")
        if self.span is not None:
            self._check_range(kinds[0], *self.span)
        elif any(value in self.values[:number] for number, value in enumerate(self.values)):
            raise ValueError(f"choice = {self.values} repeats a value: remove it")
        return self

    def _check_range(self, kind: str, low: float, high: float) -> None:
        if low > high:
            raise ValueError(f"{kind} = [{low:g}, {high:g}] is reversed: write [{high:g}, {low:g}]")
        if low == high:
            raise ValueError(
                f"{kind} = [{low:g}, {high:g}] is empty: set the key itself to {low:g}, or widen the range"
            )
        if self.logarithmic and low <= 0:
            raise ValueError(f"{kind} = [{low:g}, {high:g}]: a logarithmic range must begin above 0")

    @property
    def span(self) -> tuple[float, float] | None:
        """Both ends of the range; None for a list of values."""
        return next((span for name in RANGES if (span := getattr(self, name)) is not None), None)

    @property
    def logarithmic(self) -> bool:
        """Whether the range is logarithmic, so that distances are ratios."""
        return self.log_uniform is not None or self.log_integer is not None

    @property
    def whole(self) -> bool:
        """Whether the range has integers only."""
        return self.integer is not None or self.log_integer is not None

    @property
    def values(self) -> list[Value]:
        """The values of a list; empty for a range."""
        return self.choice or []

    @property
    def probes(self) -> list[Value]:
        """Values to check against the configuration: the list, or both ends of the range and a value inside."""
        if self.span is None:
            return self.values
        return list(dict.fromkeys([self.span[0], self.span[1], self.at(GOLDEN)]))

    @property
    def grid(self) -> list[Value]:
        """The values of a grid: the list, or evenly spaced values of the range."""
        if self.span is None:
            return self.values
        return list(dict.fromkeys(self.at(number / (self.grid_points - 1)) for number in range(self.grid_points)))

    def at(self, share: float) -> Value:
        """Return the value at a fraction from 0 to 1 of the range or the list."""
        if self.span is None:
            return self.values[min(int(share * len(self.values)), len(self.values) - 1)]
        low, high = self.span
        if self.whole:
            # Each integer is as likely as its share of the range extended by half a step on both sides.
            low, high = low - 0.5, high + 0.5
            low = max(low, 0.5) if self.logarithmic else low
        if self.logarithmic:
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return self._inside(value)

    def fraction_of(self, value: float) -> float:
        """Return the fraction from 0 to 1 at which a number lies in the range."""
        assert self.span is not None
        low, high = self.span
        if self.logarithmic:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)

    def scaled(self, value: float, factor: float) -> Value:
        """Multiply a number by a factor and clip it to the range."""
        return self._inside(value * factor)

    def _inside(self, value: float) -> Value:
        assert self.span is not None
        low, high = self.span
        kept = min(max(value, low), high)
        return round(kept) if self.whole else kept


def from_list(domain: object) -> object:
    """Convert a bare list to a choice; return other values unchanged."""
    return {"choice": domain} if isinstance(domain, list) else domain
