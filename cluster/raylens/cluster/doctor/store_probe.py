"""What a node can do with a store, by raylens' own reading and writing."""

import os
import time
from collections.abc import Callable
from typing import Any

from raylens.errors import AlreadyExistsError, ConflictError, NotFoundError, RaylensError
from raylens.storage import Store, open_store

__all__ = ["clean", "read_only", "try_store", "unseen"]

MEGA = 1_000_000
LATER = b"raylens doctor, once more\n"


def try_store(uri: str, folder: str, name: str, megabytes: int) -> dict[str, Any]:
    """Each step in turn, until one fails; what was written stays until `clean`.

    Args:
        uri: of the store.
        folder: in it, that is this examination's.
        name: of the node, for its own objects.
        megabytes: to write and to read, for the rates.

    Returns:
        What each step gave, ``write_rate`` and ``read_rate`` in megabytes a second among it; and of the first that
        failed ``failed``, its name, and ``error``.
    """
    found: dict[str, Any] = {}
    data, path = os.urandom(megabytes * MEGA), f"{name}.bin"

    def opened() -> Store:
        return open_store(uri) / folder

    steps: dict[str, Callable[[], Any]] = {
        "list": lambda: [one.path for one in opened().list()],
        "write": lambda: opened().write(f"{name}.txt", name.encode()),
        "read": lambda: _same(opened().read(f"{name}.txt"), name.encode()),
        "conditional": lambda: _conditional(opened(), f"{name}.once"),
        "write_rate": lambda: _rate(lambda: opened().write(path, data), megabytes),
        "read_rate": lambda: _rate(lambda: _same(opened().read(path), data), megabytes),
    }
    for step, do in steps.items():
        try:
            found[step] = do()
        except RaylensError as error:
            return found | {"failed": step, "error": str(error)}
        except Exception as error:  # noqa: BLE001 (a library's own: what it is, is what is looked for)
            return found | {"failed": step, "error": f"{type(error).__name__}: {error}"}
    return found


def clean(uri: str, folder: str) -> dict[str, Any]:
    """Delete what the examination wrote; ``left`` says why it stays."""
    try:
        open_store(uri).delete_tree(folder)
    except RaylensError as error:
        return {"left": str(error)}
    return {}


def unseen(uri: str, paths: list[str]) -> dict[str, Any]:
    """Objects of the store that others wrote, and that are not there for this node."""
    store = open_store(uri)
    try:
        return {"unseen": [path for path in paths if not store.exists(path)]}
    except RaylensError as error:
        return {"unseen": [], "error": str(error)}


def read_only(uri: str, megabytes: int) -> dict[str, Any]:
    """What can be asked of a store that takes no writing: its listing, and the first object's beginning."""
    try:
        store = open_store(uri)
        objects = [one for one in store.list() if one.size]
        if not objects:
            return {"failed": "list", "error": f"{store.describe()} is empty"}
        size = min(objects[0].size, megabytes * MEGA)
        return {"read_rate": _rate(lambda: store.read_range(objects[0].path, 0, size), size / MEGA)}
    except RaylensError as error:
        return {"failed": "list", "error": str(error)}


def _conditional(store: Store, path: str) -> None:
    """Write-once and compare-and-set, which checkpoints and aliases stand on; a store may ignore the condition.

    Raises:
        NotFoundError: it did.
    """
    store.write_once(path, LATER)
    _refused(lambda: store.write_once(path, LATER), AlreadyExistsError, "If-None-Match")
    _, version = store.read_with_version(path)
    store.compare_and_set(path, LATER + LATER, version)
    _refused(lambda: store.compare_and_set(path, LATER, version), ConflictError, "If-Match")


def _refused(do: Callable[[], Any], wanted: type[RaylensError], header: str) -> None:
    try:
        do()
    except wanted:
        return
    raise NotFoundError(f"the store wrote over an object that it was told to keep: it does not heed {header}")


def _same(came: bytes, sent: bytes) -> None:
    if came != sent:
        raise NotFoundError(f"{len(came)} bytes came back where {len(sent)} others were written")


def _rate(do: Callable[[], Any], megabytes: float) -> float:
    began = time.perf_counter()
    do()
    return megabytes / (time.perf_counter() - began)
