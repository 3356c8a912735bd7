"""The command ``raylens evaluate``, which measures a registered model's zero-shot accuracy."""

from typing import Annotated

import typer

from raylens.workloads.cli.options import Registry

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command ``evaluate`` with the root."""
    app.command("evaluate")(evaluate)


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION|@ALIAS]", help="A registered model.")],
    data: Annotated[str, typer.Option(help="URI of labelled shards with a classes.json beside them.")],
    registry: Registry = "registry",
    out: Annotated[str, typer.Option(help="URI of the folder for report.html and the results.")] = "evaluation",
) -> None:
    """Measure the zero-shot accuracy of a registered model, with an exact interval and an HTML report.

    Example:

        raylens evaluate digits --registry quickstart/registry --data quickstart/data/heldout
    """
    from raylens.storage import open_store
    from raylens.workloads.evaluation import evaluate_model

    result = evaluate_model(registry, model, open_store(data), open_store(out))
    typer.echo(f"{result.model}: {result.headline}\nreport: {result.report}")
