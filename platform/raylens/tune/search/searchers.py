"""Optuna's TPE behind the searcher interface of Ray Tune."""

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
    """A space that Optuna asks for key by key, so that conditions are known; Ray Tune pickles it."""

    def __init__(self, space: Space, sweep_uri: str) -> None:
        self._space, self._uri = space, sweep_uri

    def __call__(self, trial: Any) -> dict[str, Any]:
        values: Values = {}
        for key in self._space.domains:
            if self._space.applies(key, values):
                values[key] = self._suggest(trial, key)
        return {"sweep": self._uri, "trial": {"number": trial.number, "repeat": 0, "values": values}}

    def _suggest(self, trial: "optuna.Trial", key: str) -> Any:
        domain = self._space.domains[key]
        if domain.span is None:
            # By index in the list, since Optuna accepts scalar values only.
            return domain.values[trial.suggest_categorical(key, list(range(len(domain.values))))]
        low, high = domain.span
        if domain.whole:
            return trial.suggest_int(key, int(low), int(high), log=domain.logarithmic)
        return trial.suggest_float(key, low, high, log=domain.logarithmic)


def tpe(config: SweepConfig, space: Space, sweep_uri: str = "") -> Any:
    """Build Optuna's TPE with the sweep's seed; constant liar spreads trials that run at the same time."""
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
    """Suggests each configuration to several trials, and learns from the mean of their results.

    Ray's own `Repeater` loses its groups when a sweep is resumed; here they are part of the saved state.
    """

    def __init__(self, repeats: int, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._repeats = repeats
        self._groups: list[list[str]] = []
        self._reached: dict[str, float | None] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        """Implement `Searcher.suggest`: repeat the last configuration until its repeats are complete."""
        if not self._groups or len(self._groups[-1]) == self._repeats:
            self._groups.append([])
        group = self._groups[-1]
        if trial_id not in group:
            group.append(trial_id)
        suggestion = super().suggest(group[0])
        if suggestion is None:
            return None
        return {**suggestion, "trial": {**suggestion["trial"], "repeat": group.index(trial_id)}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Ignore intermediate results; the search learns from the end of trials."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Implement `Searcher.on_trial_complete`: learn from a configuration whose repeats are complete."""
        group = next(group for group in self._groups if trial_id in group)
        value = (result or {}).get(self.metric)
        self._reached[trial_id] = None if error else value
        if len(group) < self._repeats or not all(member in self._reached for member in group):
            return
        known = [value for member in group if (value := self._reached[member]) is not None]
        mean = {self.metric: sum(known) / len(known)} if known else None
        super().on_trial_complete(group[0], mean, error=not known)
