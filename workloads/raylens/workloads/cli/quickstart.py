"""The command ``raylens quickstart``, from digit scans to a served embedding."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from raylens.report import percent_text
from raylens.workloads.cli.options import Address, NumCpus, Set

if TYPE_CHECKING:
    from raylens.workloads.quickstart.quickstart import QuickstartResult

__all__ = ["add_to"]

DEFAULT = "quickstart"


def add_to(app: typer.Typer) -> None:
    """Register the command ``quickstart`` with the root."""
    app.command("quickstart")(quickstart)


def quickstart(
    storage: Annotated[
        str,
        typer.Option(
            help="Folder or s3://bucket/prefix?endpoint_override=http://host:port for everything that is written."
        ),
    ] = DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON line.")] = False,
    changes: Set = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Go from digit scans to a served embedding: pack, train, register, evaluate, serve, check.

    It takes one and a half to three minutes on two cores. The same command again resumes, or reuses what exists.

    Examples:

        raylens quickstart

        raylens quickstart --set zero.stage=3 --storage other-folder

        raylens quickstart --storage "s3://bucket/try?endpoint_override=http://127.0.0.1:9000" --json
    """
    from raylens.cluster import session
    from raylens.extras import require_extra
    from raylens.serve.deploy import haproxy_ports
    from raylens.serve.deploy.environment import environment
    from raylens.workloads.pages.terminal import Terminal

    require_extra("train", "raylens quickstart")
    with (
        Terminal() as terminal,
        session(
            address,
            num_cpus,
            environment() | haproxy_ports(),
            say=terminal.say,
            meanwhile=["raylens.workloads.quickstart.quickstart"],
        ) as inherited,
    ):
        from raylens.workloads.quickstart.quickstart import quickstart as run

        result = run(storage, terminal, assignments=changes or (), inherited=inherited)
    if as_json:
        typer.echo(json.dumps(result.as_dict()))
        return
    _show(result, storage)


def _show(result: "QuickstartResult", storage: str) -> None:
    from raylens.storage import open_store

    low, high = map(percent_text, result.zero_shot_interval)
    accuracy = f"{percent_text(result.zero_shot_accuracy)}  (95% interval {low} to {high}; chance 10%)"
    table = Table(title="raylens quickstart", show_header=False, title_justify="left")
    for name, value in (
        ("zero-shot accuracy", accuracy),
        ("report", result.report),
        ("model", f"{result.model} in {result.registry}"),
        ("run", result.run),
        ("served = offline", f"to {result.served_max_difference:.1e}"),
        ("seconds", "  ".join(f"{stage} {seconds:.0f}" for stage, seconds in result.seconds.items())),
    ):
        table.add_row(name, value)
    Console().print(table)
    # Outside of the table, which would break the lines that people copy; the URI keeps its endpoint.
    registry = (open_store(storage) / "registry").uri if "://" in storage else result.registry
    typer.echo(f"Open the report, or leave the API running:\n  {sys.argv[0]} serve digits --registry '{registry}'")
    if storage == DEFAULT:
        typer.echo(f"Train longer:\n  {sys.argv[0]} train digits --set name=longer --set length.epochs=60")
