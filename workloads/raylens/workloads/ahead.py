"""Importing in the background what is needed next, while this process waits for others."""

import contextlib
import threading
from collections.abc import Sequence
from importlib import import_module

__all__ = ["import_ahead"]


def import_ahead(modules: Sequence[str]) -> None:
    """Begin to import modules, and return at once; who imports one meanwhile waits until it is there.

    Only for packages that share no half-imported modules with what the caller imports: two threads that import the
    parts of one package in different orders may see it unfinished.
    """
    threading.Thread(target=_import, args=(tuple(modules),), name="raylens-import-ahead", daemon=True).start()


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        with contextlib.suppress(ImportError):  # said by the import that needs it, if there is one
            import_module(name)
