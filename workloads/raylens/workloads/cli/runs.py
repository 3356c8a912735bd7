"""The commands ``raylens runs``, which show what training runs have written."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from raylens.workloads.cli.options import check_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

__all__ = ["AsJson", "app", "print_page"]

WIDE = 160
"""Width of a table that goes into a file or another program."""

AsJson = Annotated[bool, typer.Option("--json", help="Print one line of JSON instead.")]

app = typer.Typer(help="List, show and compare training runs.", no_args_is_help=True)


@app.command("list")
def list_runs(
    storage: Annotated[str, typer.Argument(help="URI of the folder that holds the runs, e.g. runs.")],
    as_json: AsJson = False,
) -> None:
    """List the runs of a storage with their progress and their last event.

    An "unfinished" run is running, or its process was killed: the time of its last event tells which.

    Examples:

        raylens runs list runs

        raylens runs list s3://bucket/runs --json
    """
    from raylens.workloads.pages.runs import list_page

    print_page(list_page(storage, as_json))


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(help="URI of a run's folder, or of its storage.")],
    name: Annotated[str | None, typer.Argument(help="The run's name, if a storage was named.")] = None,
    out: Annotated[Path | None, typer.Option(help="File for the page of the run's curves up to now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: changed settings, last record, best evaluations, checkpoints and events.

    A run that has ended has a page of curves in its folder, training.html; --out writes it at any time.

    Examples:

        raylens runs show runs/digits

        raylens runs show s3://bucket/runs digits --out digits.html
    """
    from raylens.workloads.pages.runs import open_run, show_page, write_page

    if out is not None:
        check_file(out, "--out")
    opened = open_run(run, name)
    print_page(show_page(opened, as_json))
    if out is not None:
        write_page(opened, out)
        typer.echo(f"curves: {out}", err=True)


@app.command("compare")
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="URIs of the folders of two runs or more.")],
    out: Annotated[Path, typer.Option(help="File for the page of curves.")] = Path("compare.html"),
    as_json: AsJson = False,
) -> None:
    """Compare runs: their different settings, last and best values, and a page that draws their curves together.

    Example:

        raylens runs compare runs/digits runs/hotter --out compare.html
    """
    from raylens.workloads.pages.runs import compare as pages

    check_file(out, "--out")
    print_page(pages(runs, out, as_json))


def print_page(page: "Iterable[str | Table]") -> None:
    """Print tables as wide as the terminal, and lines, some of which are JSON, without wrapping them."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    for part in page:
        if isinstance(part, str):
            typer.echo(part)
        else:
            console.print(part)
