"""Whether a cluster belongs to the command that uses it."""

import os

__all__ = ["declare_own_cluster", "is_own_cluster"]

VARIABLE = "RAYLENS_OWN_CLUSTER"


def declare_own_cluster(own: bool) -> None:
    """Note in the environment whether the cluster that is about to be used was started by this command for itself.

    Processes of a cluster inherit the environment of whoever started it.
    """
    if own:
        os.environ[VARIABLE] = "1"
    else:
        os.environ.pop(VARIABLE, None)


def is_own_cluster() -> bool:
    """Tell whether the cluster is one machine's, was started by this command, and ends with it."""
    return os.environ.get(VARIABLE) == "1"
