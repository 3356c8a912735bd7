"""A search space: keys of a configuration by their dotted paths, each with its domain."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raylens.config import RunConfig, validated
from raylens.errors import ConfigError
from raylens.tune.domain import Domain, Value

__all__ = ["Space", "Values", "with_values"]

Values = dict[str, Value]
"""Of one configuration: the searched keys that apply, by dotted path."""

OWN = ("name", "storage", "registry")
PAIR = ("objective.temperature", "objective.logit_scale")
MOST_GRID = 100_000


@dataclass(frozen=True)
class Space:
    """Keys in the order in which they were written; conditions look back, never ahead."""

    domains: Mapping[str, Domain]

    def applies(self, key: str, values: Values) -> bool:
        """Whether a key is searched, given the values of those before it."""
        return all(values.get(other) in allowed for other, allowed in self.domains[key].when.items())

    def draw(self, seed: Sequence[int]) -> Values:
        """A random configuration; the same for the same seed, whatever else is searched behind a key."""
        shares = np.random.default_rng(seed).random(len(self.domains))
        values: Values = {}
        for share, (key, domain) in zip(shares, self.domains.items(), strict=True):
            if self.applies(key, values):
                values[key] = domain.at(float(share))
        return values

    def grid(self) -> list[Values]:
        """Every combination of listed and evenly spaced values, each once.

        Raises:
            ConfigError: there are too many to be meant.
        """
        found = list(itertools.islice(self._grid(list(self.domains), {}), MOST_GRID + 1))
        if len(found) > MOST_GRID:
            raise ConfigError(f"space: its grid has more than {MOST_GRID:,} configurations: lower grid_points")
        return found

    def _grid(self, keys: Sequence[str], values: Values) -> Iterator[Values]:
        if not keys:
            yield values
            return
        first, *rest = keys
        if not self.applies(first, values):
            yield from self._grid(rest, values)
            return
        for value in self.domains[first].grid:
            yield from self._grid(rest, {**values, first: value})

    def check(self, run: RunConfig) -> None:
        """Refuse a space that the configuration does not take, before anything starts.

        Each value of a list and both ends and the inside of a range are tried in a configuration of which the rest is
        as it is, with conditions fulfilled.

        Raises:
            ConfigError: names the key and what is wrong with it.
        """
        if not self.domains:
            raise ConfigError("space is empty: name at least one key, e.g. optim.peak_lr: {log_uniform: [1e-4, 1e-2]}")
        tree = run.model_dump(mode="json")
        for key, domain in self.domains.items():
            self._check_key(key, domain)
            least = self._fulfilling(key)
            for value in domain.probes:
                try:
                    validated(RunConfig, with_values(tree, {**least, key: value}))
                except ConfigError as error:
                    raise ConfigError(f"space: {key} = {value!r} cannot be: {error}") from None

    def _check_key(self, key: str, domain: Domain) -> None:
        if key in OWN:
            raise ConfigError(f"space: {key} cannot be searched: each trial has its own; leave it out")
        for other in self.domains:
            if other.startswith(f"{key}.") or (key in PAIR and other in PAIR and other != key):
                raise ConfigError(f"space: {key} and {other} are in conflict, they set the same thing: leave one out")
        for other, allowed in domain.when.items():
            self._check_condition(key, other, allowed)

    def _check_condition(self, key: str, other: str, allowed: Sequence[Value]) -> None:
        names = list(self.domains)
        if other not in names or names.index(other) >= names.index(key):
            raise ConfigError(f"space: {key}.when.{other}: it must be a key of the space that stands before {key}")
        never = [value for value in allowed if value not in self.domains[other].values]
        if never:
            raise ConfigError(
                f"space: {key}.when.{other} = {never[0]!r} never comes: {other} is one of {self.domains[other].values}"
            )

    def _fulfilling(self, key: str) -> Values:
        """Values of other keys with which this one applies."""
        values: Values = {}
        for other, allowed in self.domains[key].when.items():
            values |= {**self._fulfilling(other), other: allowed[0]}
        return values


def with_values(tree: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """A configuration's tree with values in their places; all that is not named stays, siblings of a ``kind`` too."""
    changed = dict(tree)
    for path, value in values.items():
        *folders, last = path.split(".")
        node = changed
        for name in folders:
            below = node.get(name)
            # An unset folder, or an unknown one, which validation will name.
            node[name] = dict(below) if isinstance(below, Mapping) else {}
            node = node[name]
        node[last] = value
    return changed
