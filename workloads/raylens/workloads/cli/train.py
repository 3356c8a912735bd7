"""The commands ``raylens train``, which trains an encoder, and ``raylens recipes``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylens.workloads.cli.options import Address, NumCpus, Set

if TYPE_CHECKING:
    from raylens.config import RunConfig
    from raylens.train import RunResult
    from raylens.workloads.pages.terminal import Terminal

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the commands ``train`` and ``recipes`` with the root."""
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
    schedule: Annotated[
        Path | None,
        typer.Option(
            "--plot-schedule", help="Draw the schedule of learning rates to a file (.png, .svg, .pdf) and exit."
        ),
    ] = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Train an encoder and register it. The same command again resumes from the newest checkpoint.

    Examples:

        raylens recipes

        raylens train digits --print-config > mine.yaml

        raylens train mine.yaml --set optim.schedule.kind=linear --plot-schedule rates.png

        raylens train mine.yaml --set name=hotter --set objective.temperature=0.05 --set zero.stage=2
    """
    from raylens.workloads.recipes import configure

    config = configure(source, changes or ())
    if print_config:
        from raylens.config import dump_yaml

        typer.echo(dump_yaml(config), nl=False)
        return
    if schedule is not None:
        _plot(config, schedule)
        return
    from raylens.cluster import session
    from raylens.extras import require_extra
    from raylens.workloads.pages.terminal import Terminal

    require_extra("train", "raylens train")
    with Terminal() as terminal:
        terminal.title(f"train {config.name}")
        with session(address, num_cpus, say=terminal.say, meanwhile=["raylens.train.run.launch"]):
            result = _train(config, terminal)
    typer.echo(f"{result.version} in {config.registry_uri}")


def _train(config: "RunConfig", terminal: "Terminal") -> "RunResult":
    from raylens.train import train as run  # only now: it is imported while Ray starts

    return run(config, say=terminal.say, on_event=terminal.on_event)


def _plot(config: "RunConfig", path: Path) -> None:
    from raylens.workloads.pages.schedule import plot_schedule

    plot_schedule(config, path)
    typer.echo(str(path))


def recipes() -> None:
    """List the recipes with a line about each."""
    from raylens.workloads.recipes import RECIPES

    for name, recipe in RECIPES.items():
        typer.echo(f"{name:16} {(recipe.__doc__ or '').strip().splitlines()[0]}")
