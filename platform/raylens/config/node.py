"""The base of every configuration class, and pydantic's complaints in raylens' words."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Tag, ValidationError, ValidationInfo, field_validator

from raylens.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Node", "explain", "validated"]

NodeT = TypeVar("NodeT", bound="Node")
RENAMED = {"chunk_size": "chunk_size", "chunks_per_block": "chunks_per_block"}
"""Keys that have another name now, which an error suggests; the old ones are as unknown as any."""


class Node(BaseModel):
    """A frozen part of the configuration tree that refuses keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads yes, on and true alike, and pydantic would take each of them for the number 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("neither true nor false (in YAML also yes, no, on, off) is allowed; quote text")
        return value


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
    return "; ".join(_sentence(item, node) for item in error.errors(include_url=False))


def _sentence(item: "ErrorDetails", node: type[BaseModel]) -> str:
    kind = item["type"]
    path, _ = _follow(item["loc"], node)
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown(item["loc"], node)
    if kind == "missing":
        return f"{path} is missing: add it"
    if kind == "union_tag_invalid":
        return f"{path}.kind = {item['ctx']['tag']!r}: it must be one of {item['ctx']['expected_tags']}"
    message = item["msg"].removeprefix("Value error, ")
    if not path:  # a rule about several fields: the message names them itself
        return message
    if kind == "value_error" and isinstance(item["input"], Mapping):  # likewise, about the fields of a folder
        return f"{path}: {message}"
    if kind == "model_type":
        message = f"expected keys and values: {', '.join(_keys_beside((*item['loc'], ''), node))}"
    elif kind == "string_type":
        message += "; quote what is meant as text"
    return f"{path} = {item['input']!r}: {message[:1].lower()}{message[1:]}"


def _unknown(place: Sequence[str | int], node: type[BaseModel]) -> str:
    key, allowed = str(place[-1]), _keys_beside(place, node)
    close = [RENAMED[key]] if RENAMED.get(key) in allowed else difflib.get_close_matches(key, allowed, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    if "." in key:  # as --set has it; in a tree it would be one key with a dot in its name
        hint = f" (in a file, nest it: {key.replace('.', ': {')}: ...{'}' * key.count('.')})"
    path, _ = _follow(place, node)
    return f"unknown key {path!r}{hint}; allowed here: {', '.join(allowed)}"


def _keys_beside(place: Sequence[str | int], node: type[BaseModel]) -> list[str]:
    """The keys that the tree knows at the place where the unknown one stands."""
    return sorted(_follow(place[:-1], node)[1].model_fields)


def _follow(place: Sequence[str | int], node: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """A place as people write it, and the class of what is there; pydantic's has a tag where a field has kinds."""
    path: list[str] = []
    kinds: dict[str, type[BaseModel]] = {}
    for part in place:
        if part in kinds:
            node, kinds = kinds[str(part)], {}
            continue
        path.append(str(part))
        if isinstance(part, int) or part not in node.model_fields:  # a place in a list, whose items' class is known
            continue
        annotation = node.model_fields[part].annotation
        kinds = {str(of[1].tag): of[0] for of in map(get_args, get_args(annotation)) if of and isinstance(of[1], Tag)}
        child = (*get_args(annotation), annotation)[0]  # what a list is made of
        if isinstance(child, type) and issubclass(child, BaseModel):
            node = child
    return ".".join(path), node
