"""Options of jobs: pairs of names and values, amounts, and what a context says where they say nothing."""

from collections.abc import Sequence

from raylens.cluster.driver_resources import Resources
from raylens.cluster.secrets import SecretReference
from raylens.config import validated
from raylens.errors import ConfigError

__all__ = ["pairs", "resources_of", "secrets_of"]

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """``NAME=VALUE`` of an option that may be repeated.

    Raises:
        ConfigError: one has no ``=``, or a name is there twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} {name}: write it as NAME=VALUE")
        if name in found:
            raise ConfigError(f"{option} {name} is given twice")
        found[name] = value
    return found


def secrets_of(given: Sequence[str] | None, before: Sequence[str]) -> tuple[str, ...]:
    """References, those of the context first; one given here takes the place of one of its name.

    Raises:
        ConfigError: one is no reference.
    """
    found = {}
    for text in (*before, *(given or ())):
        try:
            secret = SecretReference.parse(text)
        except ValueError as error:
            raise ConfigError(f"--secret: {error}") from None
        found[secret.name] = str(secret)
    return tuple(found.values())


def resources_of(
    cpus: float | None, gpus: float | None, memory: str | None, custom: Sequence[str] | None, before: Resources
) -> Resources:
    """What a driver reserves: the options, and the context where they say nothing.

    Raises:
        ConfigError: a value is none.
    """
    given = {"cpus": cpus, "gpus": gpus, "memory": _bytes(memory), "custom": pairs(custom, "--resource") or None}
    changes = {name: value for name, value in given.items() if value is not None}
    return validated(Resources, {**before.model_dump(), **changes})


def _bytes(text: str | None) -> int | None:
    """``500M``, ``2G``, or plain bytes."""
    if text is None:
        return None
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].isalpha() else (text, "")
    if unit not in UNITS or not number.isdecimal():
        raise ConfigError(f"--memory {text}: write bytes, or a number with K, M, G or T, as 2G")
    return int(number) * UNITS[unit]
