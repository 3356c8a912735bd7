"""The files in the folder of a sweep.

<storage>/<sweep>/sweep.yaml     the complete configuration of the sweep, written once
                  sweep.json     its trials: values, states, evaluations
                  report.html    the report, written at the end and on request
                  best.yaml      the best trial as a configuration for `raylens train`
                  stop           a request to end the sweep
                  runs/          the trials, which are ordinary training runs
                  tune/          Ray Tune's own state (pickle, read only to resume the sweep)
"""

from raylens.config import dump_yaml, load_yaml, validated
from raylens.config.differences import differences
from raylens.errors import AlreadyExistsError, ConfigError, NotFoundError
from raylens.storage import Store, open_store
from raylens.tune.config import SweepConfig

__all__ = ["BEST", "CONFIG", "REPORT", "RUNS", "STOP", "TUNE", "claim", "parent_of", "read_config", "sweep_store"]

CONFIG, REPORT, BEST, STOP, RUNS, TUNE = "sweep.yaml", "report.html", "best.yaml", "stop", "runs", "tune"

FREE = ("storage", "concurrent", "retries", "budget")
"""Keys that may differ when a sweep is resumed; of the budget, all but the number of trials."""


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


def claim(store: Store, config: SweepConfig) -> None:
    """Write the configuration once; an existing sweep must have the same.

    Raises:
        ConfigError: it has another; the message names each key with both values.
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
                "another name, delete that folder, or restore its settings"
            ) from None


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
