"""Packages that only some runs need."""

from importlib import import_module
from typing import Any

from raylens.errors import ConfigError

__all__ = ["optional"]


def optional(package: str) -> Any:
    """The package that ``tracking.<package>`` needs, which is raylens' extra of the same name.

    Raises:
        ConfigError: it is not installed, or does not work.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"tracking.{package} needs the package {package} ({error}): pip install 'raylens[{package}]', or leave "
            f"tracking.{package} out"
        ) from None
