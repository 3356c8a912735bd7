"""Optuna's estimator behind Ray Tune's interface: it chooses a configuration after having seen others."""

import logging
import warnings
from typing import TYPE_CHECKING, Any

from ray.tune.search.optuna import OptunaSearch

from raylens.tune.config import SweepConfig
from raylens.tune.space import Space, Values

if TYPE_CHECKING:
    import optuna

__all__ = ["tpe"]


class _Suggest:
    """A space as Optuna wants to be told of it, key by key, so that it knows conditions; Ray Tune pickles it."""

    def __init__(self, space: Space, sweep_uri: str) -> None:
        self._space, self._uri = space, sweep_uri

    def __call__(self, trial: Any) -> dict[str, Any]:
        values: Values = {}
        for key in self._space.domains:
            if self._space.applies(key, values):
                values[key] = self._one(trial, key)
        return {"sweep": self._uri, "trial": {"number": trial.number, "repeat": 0, "values": values}}

    def _one(self, trial: "optuna.Trial", key: str) -> Any:
        domain = self._space.domains[key]
        if domain.span is None:
            # By place in the list: Optuna takes plain values only.
            return domain.values[trial.suggest_categorical(key, list(range(len(domain.values))))]
        low, high = domain.span
        if domain.whole:
            return trial.suggest_int(key, int(low), int(high), log=domain.logarithmic)
        return trial.suggest_float(key, low, high, log=domain.logarithmic)


def tpe(config: SweepConfig, space: Space, sweep_uri: str = "") -> Any:
    """Optuna's TPE with the sweep's seed; several trials at a time are spread by lies about those that still run."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("optuna").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # constant_liar, in use since 2021
        sampler = optuna.samplers.TPESampler(
            seed=config.search.seed, n_startup_trials=config.search.warm_up, constant_liar=True
        )
    return Repeating(
        config.repeats, _Suggest(space, sweep_uri), metric=config.metric, mode=config.goal, sampler=sampler
    )


class Repeating(OptunaSearch):  # type: ignore[misc] # Ray is untyped here
    """Suggests each configuration to several trials, and learns from the mean of what they reach.

    Ray's own `Repeater` loses its groups when a sweep is resumed; here they are part of what is saved.
    """

    def __init__(self, repeats: int, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._repeats = repeats
        self._groups: list[list[str]] = []
        self._reached: dict[str, float | None] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """See Ray Tune: the last configuration again while it has repeats to come, or a new one."""
        if not self._groups or len(self._groups[-1]) == self._repeats:
            self._groups.append([])
        group = self._groups[-1]
        if trial_id not in group:
            group.append(trial_id)
        found = super().suggest(group[0])
        if found is None:
            return None
        return {**found, "trial": {**found["trial"], "repeat": group.index(trial_id)}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: what is learned from is a trial's end."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """See Ray Tune."""
        group = next(group for group in self._groups if trial_id in group)
        value = (result or {}).get(self.metric)
        self._reached[trial_id] = None if error else value
        if len(group) < self._repeats or not all(one in self._reached for one in group):
            return
        known = [value for one in group if (value := self._reached[one]) is not None]
        mean = {self.metric: sum(known) / len(known)} if known else None
        super().on_trial_complete(group[0], mean, error=not known)
