"""The base of every configuration class, and pydantic's complaints in raylens' words."""

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from raylens.errors import ConfigError

__all__ = ["Node", "explain", "validated"]

NodeT = TypeVar("NodeT", bound="Node")


class Node(BaseModel):
    """A frozen part of the configuration tree that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


def validated(node: type[NodeT], values: Mapping[str, Any]) -> NodeT:
    """Build ``node`` from plain values.

    Raises:
        ConfigError: names each field, the value it got, and what is allowed.
    """
    try:
        return node.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, node)) from None


def explain(error: ValidationError, node: type[BaseModel]) -> str:
    """All complaints of a validation error as sentences that name field, value and remedy."""
    return "; ".join(
        _sentence(".".join(str(part) for part in item["loc"]), item["type"], item["msg"], item["input"], node)
        for item in error.errors(include_url=False)
    )


def _sentence(path: str, kind: str, message: str, value: object, node: type[BaseModel]) -> str:
    if kind == "extra_forbidden":
        allowed = _keys_beside(path, node)
        close = difflib.get_close_matches(path.rpartition(".")[2], allowed, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        return f"unknown key {path!r}{hint}; allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{path} is missing"
    message = message.removeprefix("Value error, ")
    if not path:  # a rule about several fields: the message names them itself
        return message
    return f"{path} = {value!r}: {message[:1].lower()}{message[1:]}"


def _keys_beside(path: str, node: type[BaseModel]) -> list[str]:
    """The keys that the tree knows at the place where the unknown one stands."""
    for part in path.split(".")[:-1]:
        child = node.model_fields[part].annotation if part in node.model_fields else None
        if not (isinstance(child, type) and issubclass(child, BaseModel)):
            break
        node = child
    return sorted(node.model_fields)
