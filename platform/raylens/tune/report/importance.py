"""How much each searched key matters for the metric, and how sure that is.

A random forest (Breiman 2001) learns the metric from the settings; the importance of a key is by how much the error of
its predictions grows when the key's value is taken from another trial (Breiman 2001, section 10, on trials that the
forest has not seen; the model reliance of Fisher, Rudin and Dominici 2019, equation 3.2, as a difference). Halved and
over the variance of what is predicted it is 0 for a key without influence and 1 for one that alone decides: if the
forest were exact and keys independent, it would be the total effect of Sobol' (Saltelli et al. 2010, table 2 (f)).
Hutter, Hoos and Leyton-Brown 2014 assess settings with forests likewise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from raylens.report import Axis
from raylens.tune.comparable import LEAST, Comparable, Point, comparable
from raylens.tune.domain import Domain
from raylens.tune.report.view import axis_of
from raylens.tune.trials import TrialRecord

__all__ = ["Importance", "Importances", "importances"]

ROUNDS = 60
"""Forests, each of another bootstrap sample of the configurations."""
TREES = 30
DONORS = 8
"""Other trials from which each unseen trial takes the value of a key."""
LEVEL = 0.90
ELSEWHERE = 0.5
"""Where a key that does not apply is drawn: the key that it depends on, which decides that, thereby gets the credit."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Importance:
    """The importance of one key: 0 without influence, 1 where it alone decides; an estimate may be a little below 0."""

    key: str
    mean: float
    low: float
    high: float
    """BudgetStopper of the 90% interval over bootstrap samples."""


@dataclass(frozen=True)
class Importances:
    """The importances of all searched keys that vary, the most important first."""

    keys: Sequence[Importance]
    at: Comparable
    """Where and among which trials the metric was compared."""


@dataclass(frozen=True)
class _Encoded:
    """``N`` trials as the forest sees them, ``F`` numbers each."""

    x_NF: Array
    columns: Mapping[str, slice]
    """The numbers that stand for each key."""
    applies: Mapping[str, NDArray[np.bool_]]
    """N: whether the key has a value."""


def importances(
    trials: Sequence[TrialRecord], metric: str, space: Mapping[str, Domain], seed: int = 0
) -> Importances | None:
    """Return the importances of the keys of a space; None with fewer than 8 comparable trials, or where nothing varies.

    The ranks of the metric are predicted, so that one diverged trial does not decide alone. Repeats of a configuration
    are drawn, or left unseen, together.

    Args:
        trials: those without a value are left out; see `raylens.tune.comparable`.
        metric: its name.
        space: domains by key.
        seed: of the bootstrap and the forests; equal input gives equal numbers.
    """
    compared = comparable(trials, metric)
    if compared is None:
        return None
    y_N = stats.rankdata([point.metric for point in compared.points]).astype(np.float64)
    encoded = _encode(compared.points, {key: axis_of(domain) for key, domain in space.items()})
    group_N = np.array([point.trial.number for point in compared.points])
    if np.ptp(y_N) == 0 or not encoded.columns or len(np.unique(group_N)) < LEAST:
        return None
    rounds_RK = _rounds(encoded, y_N, group_N, seed)
    tail = (1 - LEVEL) / 2
    low_K, high_K = np.quantile(rounds_RK, (tail, 1 - tail), axis=0)
    means_K = rounds_RK.mean(axis=0)
    keys = [
        Importance(key, float(mean), float(low), float(high))
        for key, mean, low, high in zip(encoded.columns, means_K, low_K, high_K, strict=True)
    ]
    return Importances(sorted(keys, key=lambda importance: -importance.mean), compared)


def _rounds(encoded: _Encoded, y_N: Array, group_N: NDArray[np.int_], seed: int) -> Array:
    """Importances of each key in each round."""
    random = np.random.default_rng(seed)
    groups = np.unique(group_N)
    rows: list[Array] = []
    while len(rows) < ROUNDS:
        drawn = random.choice(groups, len(groups))
        unseen_M = np.flatnonzero(~np.isin(group_N, drawn))
        if len(unseen_M):  # with 8 configurations one draw in 400 leaves none
            seen_S = np.concatenate([np.flatnonzero(group_N == group) for group in drawn])
            rows.append(_round(encoded, y_N, seen_S, unseen_M, random))
    return np.array(rows)


def _round(
    encoded: _Encoded, y_N: Array, seen_S: NDArray[np.intp], unseen_M: NDArray[np.intp], random: np.random.Generator
) -> Array:
    """Return by how much the error on trials unseen by a bootstrap sample grows, halved, over the variance of all."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=int(random.integers(2**31)))
    forest.fit(encoded.x_NF[seen_S], y_N[seen_S])
    # All that is predicted in one call: the trials as they are, then with each key exchanged.
    rows = [encoded.x_NF[unseen_M], *(_exchanged(encoded, key, unseen_M, random) for key in encoded.columns)]
    predicted = np.split(forest.predict(np.concatenate(rows)), np.cumsum([len(block) for block in rows])[:-1])
    y_M = y_N[unseen_M]
    base = float(np.mean((predicted[0] - y_M) ** 2))
    errors_K = [float(np.mean((exchanged - np.repeat(y_M, DONORS)) ** 2)) for exchanged in predicted[1:]]
    return (np.array(errors_K) - base) / (2 * float(np.var(y_N)))


def _exchanged(encoded: _Encoded, key: str, unseen_M: NDArray[np.intp], random: np.random.Generator) -> Array:
    """Each unseen trial `DONORS` times, the key's value from others that have one; without one it stays as it is."""
    x_PF = np.repeat(encoded.x_NF[unseen_M], DONORS, axis=0)
    having = np.flatnonzero(encoded.applies[key])
    donors_P = random.choice(having, len(x_PF))
    taking_P = np.repeat(encoded.applies[key][unseen_M], DONORS)
    columns = encoded.columns[key]
    x_PF[taking_P, columns] = encoded.x_NF[donors_P[taking_P], columns]
    return x_PF


def _encode(points: Sequence[Point], axes: Mapping[str, Axis]) -> _Encoded:
    """Ranges and lists of numbers as one place from 0 to 1, on the key's own scale; other lists as one column a value.

    Keys that are the same in all trials are left out.
    """
    blocks: list[Array] = []
    columns: dict[str, slice] = {}
    applies: dict[str, NDArray[np.bool_]] = {}
    width = 0
    for key, axis in axes.items():
        places = [axis.place(point.values.get(key)) if key in point.values else None for point in points]
        if len({place for place in places if place is not None}) < 2:
            continue
        block_NW = _block(places, axis)
        columns[key] = slice(width, width + block_NW.shape[1])
        applies[key] = np.array([place is not None for place in places])
        blocks.append(block_NW)
        width += block_NW.shape[1]
    return _Encoded(np.concatenate(blocks, axis=1) if blocks else np.zeros((len(points), 0)), columns, applies)


def _block(places: Sequence[float | None], axis: Axis) -> Array:
    position_N = np.array([ELSEWHERE if place is None else place for place in places], dtype=np.float64)
    if axis.numeric or axis.values is None:
        return position_N[:, None]
    having_N = np.array([place is not None for place in places])
    which_N = np.floor(position_N * len(axis.values)).astype(int)
    same_NW = which_N[:, None] == np.arange(len(axis.values))
    return np.where(having_N[:, None], same_NW, 0.0).astype(np.float64)
