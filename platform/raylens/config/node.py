"""The base of every configuration class, and the translation of pydantic's errors into messages of raylens."""

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Tag, ValidationError, ValidationInfo, field_validator

from raylens.errors import ConfigError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["Node", "explain", "validated"]

NodeT = TypeVar("NodeT", bound="Node")
RENAMED = {
    "scale": "resources",
    "products": "matmul_precision",
    "run_length": "chunk_size",
    "runs_per_unit": "chunks_per_block",
    "follow_s": "follow_interval_s",
    "at_once": "max_concurrency",
}
"""Former names of keys, with the new names, which errors suggest; a former name is an unknown key."""


class Node(BaseModel):
    """A frozen part of the configuration tree that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        # YAML reads yes, on and true alike, and pydantic would convert each of them to the number 1.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("true and false (in YAML also yes, no, on, off) are not allowed; quote text")
        return value


def validated(node: type[NodeT], values: Mapping[str, Any]) -> NodeT:
    """Build ``node`` from plain values.

    Raises:
        ConfigError: a value is invalid; the message names each field, its value, and what is allowed.
    """
    try:
        return node.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(explain(error, node)) from None


def explain(error: ValidationError, node: type[BaseModel]) -> str:
    """Describe every fault in a validation error by field, value and fix."""
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
    if not path:  # a rule about several fields, whose message names them itself
        return message
    if kind == "value_error" and isinstance(item["input"], Mapping):  # the same for the fields of a section
        return f"{path}: {message}"
    if kind == "model_type":
        message = f"expected keys and values: {', '.join(_keys_beside((*item['loc'], ''), node))}"
    elif kind == "string_type":
        message += "; quote a value that is meant as text"
    return f"{path} = {item['input']!r}: {message[:1].lower()}{message[1:]}"


def _unknown(place: Sequence[str | int], node: type[BaseModel]) -> str:
    key, allowed = str(place[-1]), _keys_beside(place, node)
    close = [RENAMED[key]] if RENAMED.get(key) in allowed else difflib.get_close_matches(key, allowed, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    if "." in key:  # as --set has it; in a file it would be one key with a dot in its name
        hint = f" (in a file, nest it: {key.replace('.', ': {')}: ...{'}' * key.count('.')})"
    path, _ = _follow(place, node)
    return f"unknown key {path!r}{hint}; allowed here: {', '.join(allowed)}"


def _keys_beside(place: Sequence[str | int], node: type[BaseModel]) -> list[str]:
    """Return the known keys in the section of an unknown one."""
    return sorted(_follow(place[:-1], node)[1].model_fields)


def _follow(place: Sequence[str | int], node: type[BaseModel]) -> tuple[str, type[BaseModel]]:
    """Return a path as people write it, and the class there; pydantic's path has a tag where a field has kinds."""
    path: list[str] = []
    kinds: dict[str, type[BaseModel]] = {}
    for part in place:
        if part in kinds:
            node, kinds = kinds[str(part)], {}
            continue
        path.append(str(part))
        if isinstance(part, int) or part not in node.model_fields:  # an index in a list, whose items' class is known
            continue
        annotation = node.model_fields[part].annotation
        kinds = {str(of[1].tag): of[0] for of in map(get_args, get_args(annotation)) if of and isinstance(of[1], Tag)}
        child = (*get_args(annotation), annotation)[0]  # the class of a list's items
        if isinstance(child, type) and issubclass(child, BaseModel):
            node = child
    return ".".join(path), node
