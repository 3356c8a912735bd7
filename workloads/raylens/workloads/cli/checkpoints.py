"""The commands ``raylens checkpoints``, about the saved states of a run."""

from typing import Annotated

import typer
from rich.console import Console

__all__ = ["app"]

app = typer.Typer(help="List, verify and prune the checkpoints of a run.", no_args_is_help=True)

Run = Annotated[str, typer.Argument(help="URI of the run's folder, e.g. runs/digits or s3://bucket/runs/digits.")]


@app.command("list")
def list_checkpoints(run: Run) -> None:
    """List the complete checkpoints of a run, and say which ones its settings keep."""
    from raylens.workloads.checkpoints import listing

    Console().print(listing(run))


@app.command()
def verify(
    run: Run, step: Annotated[list[int] | None, typer.Option(help="Verify only this step. Repeatable.")] = None
) -> None:
    """Read every file of the checkpoints and compare it with its saved hash; exit with status 1 if one differs.

    Example:

        raylens checkpoints verify runs/digits --step 400
    """
    from raylens.workloads.checkpoints import verified

    failures = verified(run, step or [], typer.echo)
    for failure in failures:
        typer.echo(failure, err=True)
    if failures:
        raise typer.Exit(1)


@app.command()
def prune(
    run: Run,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Replace a retention rule of the run: keep_last=1, keep_every=1000 or keep_best=2. Repeatable.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only report what would be deleted.")] = False,
) -> None:
    """Delete checkpoints that the rules do not keep, and files of interrupted attempts to save.

    A run does this itself while it trains. Do not prune it with other rules at the same time.

    Example:

        raylens checkpoints prune runs/digits --set keep_last=1 --dry-run
    """
    from raylens.workloads.checkpoints import delete_unkept

    steps, files = delete_unkept(run, changes or [], really=not dry_run)
    verb = "would delete" if dry_run else "deleted"
    typer.echo(f"{verb} {len(steps)} checkpoints ({', '.join(map(str, steps)) or 'none'}), {len(files)} leftover files")
