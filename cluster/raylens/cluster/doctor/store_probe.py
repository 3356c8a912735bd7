"""The trial of a store on a node, with raylens' own functions for reading and writing."""

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
    """Try each operation in turn until one fails; what was written stays until `clean`.

    Args:
        uri: the URI of the store.
        folder: the folder of this examination in the store.
        name: the name of the node's own objects.
        megabytes: how much is written and read to measure the rates.

    Returns:
        The result of each step, among them ``write_rate`` and ``read_rate`` in megabytes a second; if a step failed,
        ``failed`` holds its name, and ``error`` the reason.
    """
    results: dict[str, Any] = {}
    data, path = os.urandom(megabytes * MEGA), f"{name}.bin"

    def opened() -> Store:
        return open_store(uri) / folder

    steps: dict[str, Callable[[], Any]] = {
        "list": lambda: [info.path for info in opened().list()],
        "write": lambda: opened().write(f"{name}.txt", name.encode()),
        "read": lambda: _same(opened().read(f"{name}.txt"), name.encode()),
        "conditional": lambda: _conditional(opened(), f"{name}.once"),
        "write_rate": lambda: _rate(lambda: opened().write(path, data), megabytes),
        "read_rate": lambda: _rate(lambda: _same(opened().read(path), data), megabytes),
    }
    for step, do in steps.items():
        try:
            results[step] = do()
        except RaylensError as error:
            return results | {"failed": step, "error": str(error)}
        except Exception as error:  # noqa: BLE001 (any error of a library is a result of this examination)
            return results | {"failed": step, "error": f"{type(error).__name__}: {error}"}
    return results


def clean(uri: str, folder: str) -> dict[str, Any]:
    """Delete what the examination wrote; ``left`` holds the reason if that fails."""
    try:
        open_store(uri).delete_tree(folder)
    except RaylensError as error:
        return {"left": str(error)}
    return {}


def unseen(uri: str, paths: list[str]) -> dict[str, Any]:
    """Return the objects that other nodes wrote and that this node does not see."""
    store = open_store(uri)
    try:
        return {"unseen": [path for path in paths if not store.exists(path)]}
    except RaylensError as error:
        return {"unseen": [], "error": str(error)}


def read_only(uri: str, megabytes: int) -> dict[str, Any]:
    """Try a store that is never written to: list it, and read the beginning of its first object."""
    try:
        store = open_store(uri)
        objects = [info for info in store.list() if info.size]
        if not objects:
            return {"failed": "list", "error": f"{store.describe()} is empty"}
        size = min(objects[0].size, megabytes * MEGA)
        return {"read_rate": _rate(lambda: store.read_range(objects[0].path, 0, size), size / MEGA)}
    except RaylensError as error:
        return {"failed": "list", "error": str(error)}


def _conditional(store: Store, path: str) -> None:
    """Check write-once and compare-and-set, which checkpoints and aliases rely on.

    Raises:
        NotFoundError: the store ignores the condition.
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
    raise NotFoundError(f"the store overwrote an object in spite of the header {header}, which it ignores")


def _same(received: bytes, sent: bytes) -> None:
    if received != sent:
        raise NotFoundError(f"{len(received)} bytes were read that differ from the {len(sent)} that were written")


def _rate(do: Callable[[], Any], megabytes: float) -> float:
    began = time.perf_counter()
    do()
    return megabytes / (time.perf_counter() - began)
