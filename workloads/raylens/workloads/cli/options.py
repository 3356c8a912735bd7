"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperGroup

from raylens.errors import ConfigError

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "INTERRUPTED",
    "Address",
    "ClusterName",
    "Ended",
    "NumCpus",
    "Registry",
    "ServiceSet",
    "Set",
    "SweepSet",
    "check_file",
    "root_command",
]

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit statuses of all commands for invalid input, failures, and interrupts."""

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one key of the configuration, e.g. optim.peak_lr=1e-3. Repeatable."
    ),
]
ServiceSet = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one setting of the service, e.g. limits.max_items=256. Repeatable."
    ),
]
SweepSet = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the sweep, e.g. budget.trials=8. Repeatable."),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS",
        help="Address of a running Ray cluster (auto, ray://host:10001). By default, Ray is started on this machine.",
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", envvar="RAYLENS_CLUSTER", metavar="NAME|ADDRESS", help="A context, or http://HOST:8265."),
]
NumCpus = Annotated[
    int | None,
    typer.Option(
        min=1, help="Logical CPUs of the Ray that is started on this machine; by default its cores, at least 4."
    ),
]
Registry = Annotated[
    str,
    typer.Option(envvar="RAYLENS_REGISTRY", help="URI of the model registry: a folder or s3://bucket/prefix."),
]


class Ended(SystemExit):
    """Ends a command with an exit status after everything has been reported."""


def check_file(path: Path, option: str) -> None:
    """Refuse a path to which no file can be written, before the work that produces the file.

    Raises:
        ConfigError: the path is a folder, or its parent does not exist.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: the folder {path.parent} does not exist: create it first")


def root_command(context: typer.Context) -> TyperGroup:
    """Return the command ``raylens``, of which the command that runs is a part."""
    root = context.find_root().command
    assert isinstance(root, TyperGroup)
    return root
