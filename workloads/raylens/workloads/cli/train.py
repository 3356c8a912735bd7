"""``raylens train`` and ``raylens recipes``."""

from typing import Annotated

import typer

from raylens.config import dump_yaml
from raylens.workloads.cli.options import Address, NumCpus, Set

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train")(train)
    app.command("recipes")(recipes)


def train(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")
    ],
    changes: Set = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the complete configuration and exit.")
    ] = False,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Train an encoder and register it. The same command again resumes from the newest checkpoint.

    Examples:

        raylens recipes

        raylens train digits --print-config > mine.yaml

        raylens train mine.yaml --set name=hotter --set objective.temperature=0.05 --set zero.stage=2
    """
    from raylens.workloads.recipes import configure

    config = configure(source, changes or ())
    if print_config:
        typer.echo(dump_yaml(config), nl=False)
        return
    from raylens.cluster import session
    from raylens.train import train as run
    from raylens.workloads.terminal import Terminal

    with Terminal() as terminal, session(address, num_cpus):
        terminal.title(f"train {config.name}")
        result = run(config, say=terminal.say, tell=terminal.tell)
    typer.echo(f"{result.version} in {config.registry_uri}")


def recipes() -> None:
    """List the recipes, a line each."""
    from raylens.workloads.recipes import RECIPES

    for name, recipe in RECIPES.items():
        typer.echo(f"{name:16} {(recipe.__doc__ or '').strip().splitlines()[0]}")
