"""Packages that only some uses of raylens need come with its extras; a missing extra is one line that names it.

``pip install raylens`` serves, evaluates and is a client; ``raylens[train]`` brings what trains and sweeps.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from raylens.errors import MissingExtraError

__all__ = ["EXTRAS", "import_extra", "require_extra"]

EXTRAS = {
    "train": ("deepspeed", "optuna", "sklearn", "tensorboardX"),
    "lion": ("pytorch_optimizer",),
    "mlflow": ("mlflow",),
    "wandb": ("wandb",),
}
"""The modules that each extra of ``pyproject.toml`` brings."""


def require_extra(extra: str, purpose: str) -> None:
    """Check that the packages of an extra are installed; none of them is imported.

    Args:
        extra: name of the extra, a key of `EXTRAS`.
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: at least one of its packages is not installed.
    """
    missing = [module for module in EXTRAS[extra] if find_spec(module) is None]
    if missing:
        raise MissingExtraError(_message(extra, purpose, ", ".join(missing)))


def import_extra(extra: str, module: str, purpose: str) -> Any:
    """Import and return a module that an extra brings.

    Args:
        extra: name of the extra, a key of `EXTRAS`.
        module: dotted name of the module.
        purpose: what needs it, for the message.

    Raises:
        MissingExtraError: it is not installed, or its import fails.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(_message(extra, purpose, f"{module} ({error})")) from None


def _message(extra: str, purpose: str, missing: str) -> str:
    return f"{purpose} needs packages that are not installed: {missing}; pip install 'raylens[{extra}]'"
