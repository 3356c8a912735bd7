"""Packages whose public names are imported at their first use.

Every process of a run unpickles some object of raylens, mostly a small one. With ordinary imports in a package's
``__init__``, each of these processes would load torch, a tokenizer and a plotting library for it.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_face"]


def lazy_face(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package that imports its public names on demand (PEP 562).

    Args:
        package: the name of the package, ``__name__`` in its ``__init__``.
        modules: for each public name, the module below the package that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return get
