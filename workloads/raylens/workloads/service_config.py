"""A service's settings from a file, options and single changes."""

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
    """The file's settings, changed by what is not None, and by ``key=value`` last.

    Raises:
        ConfigError: the file is missing or no YAML, nothing names a model, or a value is out of range.
    """
    tree = _read(file) if file is not None else {}
    if models:
        tree["models"] = [{"model": model} for model in models]
    if not tree.get("models"):
        raise ConfigError("no model to serve: name one (raylens serve digits), or give --config FILE.yaml with models")
    given = {"registry": registry, "host": host, "port": port}
    tree |= {name: value for name, value in given.items() if value is not None}
    if keys is not None:
        tree["security"] = dict(tree.get("security") or {}) | {"keys": keys}
    if replicas is not None:
        _scale(tree, *_bounds(replicas))
    return validated(ServiceConfig, apply_overrides(tree, changes or []))


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise ConfigError(f"--config {file}: there is no such file")
    return load_yaml(file.read_text(), str(file))


def _bounds(replicas: str) -> tuple[int, int]:
    least, _, most = replicas.partition(":")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise ConfigError(f"--replicas {replicas}: give a number, or least and most as 1:4")
    return int(least), int(most or least)


def _scale(tree: dict[str, Any], least: int, most: int) -> None:
    if not isinstance(tree["models"], list) or not all(isinstance(one, dict) for one in tree["models"]):
        raise ConfigError("models: expected a list of keys and values, as '- model: name@alias'")
    for model in tree["models"]:
        for tower in ("text", "image"):
            model[tower] = dict(model.get(tower) or {}) | {"min_replicas": least, "max_replicas": most}


def logical_cpus(config: ServiceConfig) -> int:
    """Of a cluster on this machine: as many as all replicas may want."""
    towers = [tower for model in config.models for tower in (model.text, model.image)]
    return max(4, os.cpu_count() or 1, math.ceil(sum(tower.max_replicas * tower.cpus for tower in towers)))
