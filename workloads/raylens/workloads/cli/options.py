"""Options that several commands share."""

from typing import Annotated

import typer

__all__ = ["Address", "NumCpus", "Registry", "Set"]

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
NumCpus = Annotated[
    int | None,
    typer.Option(min=1, help="Logical CPUs of the cluster on this machine; its cores, at least 4, by default."),
]
Registry = Annotated[
    str,
    typer.Option(envvar="RAYLENS_REGISTRY", help="URI of the model registry: a folder or s3://bucket/prefix."),
]
