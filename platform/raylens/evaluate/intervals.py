"""Exact confidence intervals of binomial proportions."""

from typing import NamedTuple

from raylens.errors import ConfigError

__all__ = ["Interval", "clopper_pearson"]


class Interval(NamedTuple):
    """A confidence interval, both ends included."""

    low: float
    high: float


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a binomial proportion, from two one-sided tests.

    ``low`` is the proportion at which ``successes`` or more have a probability of ``(1 - confidence) / 2``, and
    ``high`` the one at which ``successes`` or fewer have it; both are quantiles of beta distributions. The interval
    never covers less than ``confidence``, and usually covers more.

    Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26(4); used by Radford et al. 2021 in section 5.

    Raises:
        ConfigError: ``n`` is below 1, ``successes`` outside of 0..n, or ``confidence`` outside of (0, 1).
    """
    if n < 1:
        raise ConfigError(f"n = {n}: an interval needs at least one trial")
    if not 0 <= successes <= n:
        raise ConfigError(f"successes = {successes}: it must be between 0 and n = {n}")
    if not 0.0 < confidence < 1.0:
        raise ConfigError(f"confidence = {confidence}: it must lie between 0 and 1, such as 0.95")
    from scipy import special

    tail = (1.0 - confidence) / 2
    # A beta distribution with a zero parameter is a point mass, which the quantile functions do not support.
    low = special.betaincinv(successes, n - successes + 1, tail) if successes > 0 else 0.0
    high = special.betainccinv(successes + 1, n - successes, tail) if successes < n else 1.0
    return Interval(float(low), float(high))
