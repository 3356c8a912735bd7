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
    "Set",
    "check_file",
    "root_command",
]

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
"""Exit statuses of all commands."""

Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one key of the configuration, e.g. optim.peak_lr=1e-3. Repeatable."
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        envvar="RAY_ADDRESS", help="A running Ray cluster (auto, ray://host:10001). Without it, one on this machine."
    ),
]
ClusterName = Annotated[
    str | None,
    typer.Option("--cluster", envvar="RAYLENS_CLUSTER", metavar="NAME|ADDRESS", help="A context, or http://HOST:8265."),
]
NumCpus = Annotated[
    int | None,
    typer.Option(min=1, help="Logical CPUs of the cluster on this machine; its cores, at least 4, by default."),
]
Registry = Annotated[
    str,
    typer.Option(envvar="RAYLENS_REGISTRY", help="URI of the model registry: a folder or s3://bucket/prefix."),
]


class Ended(SystemExit):
    """Ends a command with a status, of which everything has been said."""


def check_file(path: Path, option: str) -> None:
    """Refuse a place where no file can be written, before there is something to write.

    Raises:
        ConfigError: it is a folder, or in none.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path} is a folder: name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{option} {path}: there is no folder {path.parent}: make it first")


def root_command(context: typer.Context) -> TyperGroup:
    """Return the command ``raylens``, of which the command that runs is a part."""
    root = context.find_root().command
    assert isinstance(root, TyperGroup)
    return root
