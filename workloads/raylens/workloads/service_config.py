"""The settings of a service, read from a file and changed by command-line options."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raylens.config import apply_overrides, load_yaml, validated
from raylens.errors import ConfigError
from raylens.serve import ServiceConfig

__all__ = ["logical_cpus", "service_config"]


def service_config(
    file: Path | None,
    models: Sequence[str] | None,
    changes: Sequence[str] | None,
    *,
    registry: str | None = None,
    host: str | None = None,
    port: int | None = None,
    replicas: str | None = None,
    keys: str | None = None,
) -> ServiceConfig:
    """Return the settings of a file, changed by the options that are not None, then by ``key=value`` changes.

    Raises:
        ConfigError: the file is missing or no YAML, no model is named, or a value is out of range.
    """
    tree = _read(file) if file is not None else {}
    if models:
        tree["models"] = [{"model": model} for model in models]
    if not tree.get("models"):
        raise ConfigError("no model to serve: name one (raylens serve digits), or give --config FILE.yaml with models")
    options = {"registry": registry, "host": host, "port": port}
    tree |= {name: value for name, value in options.items() if value is not None}
    if keys is not None:
        tree["security"] = dict(tree.get("security") or {}) | {"keys": keys}
    if replicas is not None:
        _set_replicas(tree, *_bounds(replicas))
    return validated(ServiceConfig, apply_overrides(tree, changes or []))


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"--config {file}: there is no such file; name one that exists")
    return load_yaml(file.read_text(), str(file))


def _bounds(replicas: str) -> tuple[int, int]:
    minimum, _, maximum = replicas.partition(":")
    if not minimum.isdecimal() or not (maximum or minimum).isdecimal():
        raise ConfigError(f"--replicas {replicas}: give a number, or minimum and maximum as 1:4")
    return int(minimum), int(maximum or minimum)


def _set_replicas(tree: dict[str, Any], minimum: int, maximum: int) -> None:
    if not isinstance(tree["models"], list) or not all(isinstance(model, dict) for model in tree["models"]):
        raise ConfigError("models: expected a list of mappings, such as '- model: name@alias'")
    for model in tree["models"]:
        for tower in ("text", "image"):
            model[tower] = dict(model.get(tower) or {}) | {"min_replicas": minimum, "max_replicas": maximum}


def logical_cpus(config: ServiceConfig) -> int:
    """Return the number of CPUs that a Ray cluster on this machine declares, enough for all replicas."""
    towers = [tower for model in config.models for tower in (model.text, model.image)]
    return max(4, os.cpu_count() or 1, math.ceil(sum(tower.max_replicas * tower.cpus for tower in towers)))
