"""From a configuration and its manifests to the plan."""

from collections.abc import Sequence
from typing import Any

from raylens.config import RunConfig
from raylens.data.manifest import Manifest
from raylens.data.order import EvenOrder, GivenOrder, Order
from raylens.data.plan import Plan, shares_of
from raylens.errors import ConfigError

__all__ = ["build_plan"]

GIVEN_RUNS_AT_LEAST = 4
"""Row groups in a unit, however large they are: fewer would hardly mix."""


def build_plan(config: RunConfig, manifests: Sequence[Manifest]) -> Plan:
    """The order in which a run goes through its data sets.

    Raises:
        ConfigError: ``drop_last`` leaves nothing, or a weight is too small.
    """
    data = config.data
    places = data.run_length * data.runs_per_unit
    if len(manifests) == 1:
        return Plan((_order(config, manifests[0], places),), seed=config.seed)
    shares = shares_of([source.weight for source in data.train], places)
    # A data set's units are as large as its share of a cycle, so that a task reads about one unit of each.
    orders = (_order(config, manifest, share) for manifest, share in zip(manifests, shares, strict=True))
    return Plan(tuple(orders), shares, config.seed)


def _order(config: RunConfig, manifest: Manifest, places: int) -> Order:
    samples, bounds = len(manifest), manifest.runs()
    common: dict[str, Any] = {
        "samples": samples,
        "manifest": manifest.digest,
        "seed": config.seed,
        "run_length": config.data.run_length,
        "epoch_size": _epoch_size(config, samples),
    }
    if bounds is None:
        return EvenOrder(**common, runs_per_unit=max(1, round(places / config.data.run_length)))
    runs = len(bounds) - 1
    wanted = round(places / (samples / runs))
    return GivenOrder(**common, runs_per_unit=min(runs, max(GIVEN_RUNS_AT_LEAST, wanted)), bounds=bounds)


def _epoch_size(config: RunConfig, samples: int) -> int:
    if not config.data.drop_last:
        return samples
    whole = samples // config.global_batch * config.global_batch
    if not whole:
        raise ConfigError(
            f"data.drop_last = true with global_batch = {config.global_batch} leaves nothing of {samples} samples: "
            "lower global_batch, or set data.drop_last=false"
        )
    return whole
