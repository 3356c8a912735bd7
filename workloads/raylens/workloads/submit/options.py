"""Options of jobs: pairs of names and values, amounts, and what a context says where they say nothing."""

from collections.abc import Sequence

from raylens.cluster import Resources, SecretReference
from raylens.config import validated
from raylens.errors import ConfigError

__all__ = ["pairs", "resources_of", "secrets_of"]

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """Parse ``NAME=VALUE`` texts of a repeatable option.

    Raises:
        ConfigError: a text has no ``=``, or a name occurs twice.
    """
    values: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {name}: write it as NAME=VALUE")
        if name in values:
            raise ConfigError(f"{option} {name} is given twice")
        values[name] = value
    return values


def secrets_of(texts: Sequence[str] | None, before: Sequence[str]) -> tuple[str, ...]:
    """Return references of the context and of the options, which replace those of the same name.

    Raises:
        ConfigError: a text is not a reference.
    """
    references = {}
    for text in (*before, *(texts or ())):
        try:
            secret = SecretReference.parse(text)
        except ValueError as error:
            raise ConfigError(f"--secret: {error}") from None
        references[secret.name] = str(secret)
    return tuple(references.values())


def resources_of(
    cpus: float | None, gpus: float | None, memory: str | None, custom: Sequence[str] | None, before: Resources
) -> Resources:
    """Return what a driver reserves: the options, or the context's values for options that are not set.

    Raises:
        ConfigError: a value is invalid.
    """
    options = {"cpus": cpus, "gpus": gpus, "memory": _bytes(memory), "custom": pairs(custom, "--resource") or None}
    changes = {name: value for name, value in options.items() if value is not None}
    return validated(Resources, {**before.model_dump(), **changes})


def _bytes(text: str | None) -> int | None:
    """Parse ``500M``, ``2G``, or plain bytes."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in UNITS or not number.isdecimal():
        raise ConfigError(f"--memory {text}: write bytes, or a number with K, M, G or T, as 2G")
    return int(number) * UNITS[unit]
