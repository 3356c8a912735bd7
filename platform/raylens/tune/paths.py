"""Where what is in the folder of a sweep.

<storage>/<sweep>/sweep.yaml     the sweep's settings, complete, written once
                  sweep.json     its trials: values, states, evaluations
                  report.html    at the end, and whenever it is asked for
                  best.yaml      the best trial as a configuration for `raylens train`
                  stop           somebody asked it to end
                  runs/          the trials, each a training run like any other
                  tune/          Ray Tune's own state (pickle: read only by whoever resumes the sweep)
"""

from raylens.config import differences, dump_yaml, load_yaml, validated
from raylens.errors import AlreadyExistsError, ConfigError, NotFoundError
from raylens.storage import Store, open_store
from raylens.tune.config import SweepConfig

__all__ = ["BEST", "CONFIG", "REPORT", "RUNS", "STOP", "TUNE", "claim", "parent_of", "read_config", "sweep_store"]

CONFIG, REPORT, BEST, STOP, RUNS, TUNE = "sweep.yaml", "report.html", "best.yaml", "stop", "runs", "tune"

FREE = ("storage", "concurrent", "retries", "budget")
"""What may differ when a sweep is resumed; of the budget all but the number of trials, which is settled."""


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


def claim(store: Store, config: SweepConfig) -> None:
    """Write the settings once; a sweep that exists must have the same.

    Raises:
        ConfigError: it has others; names each, with both values.
    """
    try:
        store.write_once(CONFIG, dump_yaml(config).encode())
    except AlreadyExistsError:
        saved, wanted = read_config(store).model_dump(mode="json"), config.model_dump(mode="json")
        differing = differences(saved, wanted, ignore=FREE)
        if saved["budget"]["trials"] != config.budget.trials:
            differing.append(f"budget.trials was {saved['budget']['trials']}, is now {config.budget.trials}")
        if differing:
            raise ConfigError(
                f"sweep {config.name!r} exists at {store.describe()} with other settings: {'; '.join(differing)}. Use "
                "another name, delete that folder, or go back to its settings"
            ) from None


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
