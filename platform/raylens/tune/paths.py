"""Where what is in the folder of a sweep.

<storage>/<sweep>/sweep.yaml     the sweep's settings, complete, written once
                  sweep.json     its trials: values, states, evaluations
                  report.html    at the end, and whenever it is asked for
                  best.yaml      the best trial as a configuration for `raylens train`
                  stop           somebody asked it to end
                  runs/          the trials, each a training run like any other
                  tune/          Ray Tune's own state (pickle: read only by whoever resumes the sweep)
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
"""What may differ when a sweep is resumed; of the budget all but the number of trials, which is settled."""
SWEEP_SETTINGS = SettingsFile("sweep", CONFIG, FREE)


def sweep_store(config: SweepConfig) -> Store:
    """The folder of a sweep."""
    return open_store(config.storage) / config.name


def read_config(store: Store) -> SweepConfig:
    """The settings of a sweep.

    Raises:
        NotFoundError: there is none.
        ConfigError: they are of another version of raylens.
    """
    try:
        text = store.read_text(CONFIG)
    except NotFoundError:
        raise NotFoundError(
            f"{store.describe()} is no sweep, it has no {CONFIG}: `raylens sweep list STORAGE` shows all sweeps"
        ) from None
    return validated(SweepConfig, load_yaml(text, f"{store.describe()}/{CONFIG}"))


def parent_of(uri: str, name: str) -> str:
    """The storage of a sweep, from the URI of its folder.

    Raises:
        ConfigError: the folder has another name than the sweep in it, whose trials know where they are.
    """
    path, question, query = uri.partition("?")
    parent, _, last = path.rstrip("/").rpartition("/")
    if last != name:
        raise ConfigError(f"{uri} has sweep {name!r}: give the folder that name again, or name it in full")
    return f"{parent or '.'}{question}{query}"
