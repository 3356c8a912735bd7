"""The root of the command line: it collects the commands, and reports errors in one line with a non-zero status."""

import os
import sys
import traceback
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperGroup

from raylens.errors import ConfigError, RaylensError
from raylens.workloads.cli import (
    checkpoints,
    cluster,
    contexts,
    cost,
    data,
    doctor,
    estimate,
    evaluate,
    jobs,
    models,
    quickstart,
    runs,
    serve,
    sweep,
    tokenizer,
    train,
)
from raylens.workloads.cli.options import BAD_INPUT, FAILED, INTERRUPTED, Ended

__all__ = ["app", "main", "report"]

DEBUG = "RAYLENS_DEBUG"
RENAMED = {"budget": "estimate", "clusters": "contexts"}
"""Former names of commands and their present ones, which the error about an unknown command suggests."""


class _Root(TyperGroup):
    """The group of all commands, whose error about an unknown command suggests the present name of a renamed one."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        present = RENAMED.get(args[0]) if args else None
        if present in self.commands and args[0] not in self.commands:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {present!r}?")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="raylens",
    cls=_Root,
    help="Train CLIP-style image-text encoders on Ray, evaluate them, and serve them as embedding replicas.",
    epilog="Start with `raylens quickstart`. RAYLENS_DEBUG=1 prints a traceback with each error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
for module in (quickstart, train, estimate, cost, evaluate, doctor):
    module.add_to(app)
app.add_typer(serve.app, name="serve")
app.add_typer(models.app, name="models")
app.add_typer(sweep.app, name="sweep")
app.add_typer(runs.app, name="runs")
app.add_typer(checkpoints.app, name="checkpoints")
app.add_typer(data.app, name="data")
app.add_typer(jobs.app, name="jobs")
app.add_typer(contexts.app, name="contexts")
app.add_typer(cluster.app, name="cluster")
app.add_typer(tokenizer.app, name="tokenizer")


@app.callback(invoke_without_command=True)
def _root(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if show_version:
        from importlib.metadata import version

        typer.echo(f"raylens {version('raylens')}")
        raise typer.Exit


def main() -> None:
    """Run the command line; never returns."""
    try:
        app()
    except RaylensError as error:
        report(error)
        sys.exit(BAD_INPUT if isinstance(error, ConfigError) else FAILED)
    except Ended:
        raise
    except SystemExit as ended:
        if ended.code == INTERRUPTED:  # what typer makes of KeyboardInterrupt
            Console(stderr=True).print("[yellow]interrupted[/yellow]; the same command resumes from what is saved")
        raise


def report(error: RaylensError) -> None:
    """Print an error in one line, after its traceback if RAYLENS_DEBUG is set."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    Console(stderr=True, highlight=False).print(f"[bold red]error:[/bold red] {escape(str(error))}", soft_wrap=True)
