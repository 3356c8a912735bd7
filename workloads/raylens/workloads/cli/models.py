"""``raylens models``: what is in the registry."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from raylens.workloads.cli.options import Registry

__all__ = ["app"]

app = typer.Typer(help="List registered models and move their aliases.", no_args_is_help=True)


@app.command("list")
def list_models(registry: Registry = "registry") -> None:
    """List all models, versions and aliases."""
    from raylens.registry import Registry as Models

    models = Models(registry)
    table = Table("model", "created", "step", "aliases", "digest")
    for name in models.names():
        aliases = models.aliases(name)
        for version in models.versions(name):
            pointing = ", ".join(alias for alias, number in aliases.items() if number == version.number)
            table.add_row(
                str(version), version.created, str(version.lineage.get("step", "")), pointing, version.digest[:12]
            )
    if not table.rows:
        typer.echo(f"no models in {models.store.describe()}", err=True)
        return
    Console().print(table)


@app.command()
def promote(
    target: Annotated[str, typer.Argument(metavar="MODEL@ALIAS", help="E.g. digits@prod.")],
    version: Annotated[int, typer.Argument(help="The version number that the alias shall point to.")],
    registry: Registry = "registry",
) -> None:
    """Point an alias at a version, atomically: `raylens models promote digits@prod 2`."""
    from raylens.errors import ConfigError
    from raylens.registry import Registry as Models

    name, at, alias = target.partition("@")
    if not at or not alias:
        raise ConfigError(f"{target!r}: write MODEL@ALIAS, e.g. digits@prod")
    typer.echo(f"{name}@{alias} is now {Models(registry).promote(name, alias, version)}")
