"""The root of the command line: its commands, and errors as one line with a non-zero exit."""

import os
import sys
import traceback
from importlib.metadata import version
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from raylens.errors import ConfigError, RaylensError
from raylens.workloads.cli import (
    budget,
    checkpoints,
    data,
    evaluate,
    models,
    quickstart,
    runs,
    serve,
    sweep,
    tokenizer,
    train,
)

__all__ = ["app", "main"]

DEBUG = "RAYLENS_DEBUG"
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

app = typer.Typer(
    name="raylens",
    help="Train CLIP-style image-text encoders on Ray, evaluate them, and serve them as embedding replicas.",
    epilog="Start with `raylens quickstart`. A traceback instead of one-line errors: RAYLENS_DEBUG=1.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for module in (quickstart, train, budget, evaluate):
    module.add_to(app)
app.add_typer(serve.app, name="serve")
app.add_typer(models.app, name="models")
app.add_typer(sweep.app, name="sweep")
app.add_typer(runs.app, name="runs")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if show_version:
        typer.echo(f"raylens {version('raylens')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; never returns."""
    try:
        app()
    except RaylensError as error:
        _report(error)
        sys.exit(BAD_INPUT if isinstance(error, ConfigError) else FAILED)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            Console(stderr=True).print("[yellow]interrupted[/yellow]; the same command resumes from what is saved")
        raise


def _report(error: RaylensError) -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
