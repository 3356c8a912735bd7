"""The files in the folder of a sweep.

<storage>/<sweep>/sweep.yaml     the complete configuration of the sweep, written once
                  sweep.json     its trials: values, states, evaluations
                  report.html    the report, written at the end and on request
                  best.yaml      the best trial as a configuration for `raylens train`
                  stop           a request to end the sweep
                  runs/          the trials, which are ordinary training runs
                  tune/          Ray Tune's own state (pickle, read only to resume the sweep)
"""

from raylens.config import SettingsFile, load_yaml, validated
from raylens.errors import ConfigError, NotFoundError
from raylens.storage import Store, open_store
from raylens.tune.config import BudgetConfig, SweepConfig

__all__ = [
    "BEST",
    "CONFIG",
    "REPORT",
    "RUNS",
    "STOP",
    "SWEEP_SETTINGS",
    "TUNE",
    "parent_of",
    "read_config",
    "sweep_store",
]

CONFIG, REPORT, BEST, STOP, RUNS, TUNE = "sweep.yaml", "report.html", "best.yaml", "stop", "runs", "tune"

FREE = ("storage", "concurrent", "retries", *(f"budget.{key}" for key in BudgetConfig.model_fields if key != "trials"))
"""Keys that may differ when a sweep is resumed; of the budget, all but the number of trials."""
SWEEP_SETTINGS = SettingsFile("sweep", CONFIG, FREE)


def sweep_store(config: SweepConfig) -> Store:
    """Return the folder of a sweep."""
    return open_store(config.storage) / config.name


def read_config(store: Store) -> SweepConfig:
    """Read the configuration of a sweep.

    Raises:
        NotFoundError: the folder is not a sweep.
        ConfigError: another version of raylens wrote the configuration.
    """
    try:
        text = store.read_text(CONFIG)
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is not a sweep, it has no {CONFIG}: `raylens sweep list STORAGE` shows all sweeps"
        ) from None
    return validated(SweepConfig, load_yaml(text, f"{store.describe()}/{CONFIG}"))


def parent_of(uri: str, name: str) -> str:
    """Return the storage of a sweep, given the URI of its folder.

    Raises:
        ConfigError: the folder was renamed; the trials of a sweep store their location.
    """
    path, question, query = uri.partition("?")
    parent, _, last = path.rstrip("/").rpartition("/")
    if last != name:
        raise ConfigError(f"{uri} holds sweep {name!r}: rename the folder to {name}")
    return f"{parent or '.'}{question}{query}"
