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
"""The values of a configuration: the searched keys that apply, by dotted path."""

OWN = ("name", "storage", "registry")
PAIR = ("objective.temperature", "objective.logit_scale")
MOST_GRID = 100_000


@dataclass(frozen=True)
class Space:
    """A search space; conditions of a key refer to keys before it."""

    domains: Mapping[str, Domain]

    def applies(self, key: str, values: Values) -> bool:
        """Return whether a key is searched, given the values of the keys before it."""
        return all(values.get(other) in allowed for other, allowed in self.domains[key].when.items())

    def draw(self, seed: Sequence[int]) -> Values:
        """Draw a random configuration; a key's value depends on the seed, not on the keys after it."""
        shares = np.random.default_rng(seed).random(len(self.domains))
        values: Values = {}
        for share, (key, domain) in zip(shares, self.domains.items(), strict=True):
            if self.applies(key, values):
                values[key] = domain.at(float(share))
        return values

    def grid(self) -> list[Values]:
        """Return every combination of the values of the grid, each once.

        Raises:
            ConfigError: there are more than `MOST_GRID` combinations.
        """
        configurations = list(itertools.islice(self._grid(list(self.domains), {}), MOST_GRID + 1))
        if len(configurations) > MOST_GRID:
            raise ConfigError(f"space: its grid has more than {MOST_GRID:,} configurations: lower grid_points")
        return configurations

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
        """Refuse a space with values that the configuration does not accept, before any trial starts.

        Each value of a list, and both ends and an inner value of a range, are tried in the base configuration with the
        conditions of the key fulfilled.

        Raises:
            ConfigError: the run refuses a value; the message names the key.
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
                    raise ConfigError(f"space: {key} = {value!r} is invalid: {error}") from None

    def _check_key(self, key: str, domain: Domain) -> None:
        if key in OWN:
            raise ConfigError(f"space: {key} cannot be searched, since each trial has its own: remove it")
        for other in self.domains:
            if other.startswith(f"{key}.") or (key in PAIR and other in PAIR and other != key):
                raise ConfigError(f"space: {key} and {other} are in conflict, they set the same value: remove one")
        for other, allowed in domain.when.items():
            self._check_condition(key, other, allowed)

    def _check_condition(self, key: str, other: str, allowed: Sequence[Value]) -> None:
        names = list(self.domains)
        if other not in names or names.index(other) >= names.index(key):
            raise ConfigError(f"space: {key}.when.{other}: {other} must be a key of the space before {key}")
        never = [value for value in allowed if value not in self.domains[other].values]
        if never:
            raise ConfigError(
                f"space: {key}.when.{other} = {never[0]!r} never occurs: {other} is one of {self.domains[other].values}"
            )

    def _fulfilling(self, key: str) -> Values:
        """Return values of other keys under which this key is searched."""
        values: Values = {}
        for other, allowed in self.domains[key].when.items():
            values |= {**self._fulfilling(other), other: allowed[0]}
        return values


def with_values(tree: Mapping[str, Any], values: Values) -> dict[str, Any]:
    """Return a configuration tree with some values replaced; all others stay, also those beside a ``kind``."""
    changed = dict(tree)
    for path, value in values.items():
        *sections, last = path.split(".")
        node = changed
        for name in sections:
            below = node.get(name)
            # The section is unset, or unknown, which validation will report.
            node[name] = dict(below) if isinstance(below, Mapping) else {}
            node = node[name]
        node[last] = value
    return changed
