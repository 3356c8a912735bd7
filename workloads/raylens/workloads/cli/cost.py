"""``raylens cost``: what a run takes on a described cluster."""

from pathlib import Path
from typing import Annotated

import typer

from raylens.workloads.cli.options import Set
from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("cost")(cost)


def cost(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")
    ],
    spec: Annotated[Path, typer.Option(metavar="CLUSTER.yaml", help="The cluster: see `raylens cluster init`.")],
    changes: Set = None,
    pairs_per_second: Annotated[
        float | None, typer.Option(min=1e-6, help="Of training, with all workers. Without it, --from-run or counted.")
    ] = None,
    from_run: Annotated[
        str | None, typer.Option(metavar="URI", help="Take the speed that a run of this kind was measured at.")
    ] = None,
    pairs_per_core: Annotated[
        float | None, typer.Option(min=1e-6, help="A second, that a core reads and decodes; 700 is assumed.")
    ] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Of an epoch; else of the data's manifest.")] = None,
    bytes_per_pair: Annotated[
        float | None, typer.Option(min=1, help="To read; else of the manifest, or 57,000.")
    ] = None,
    interruptions: Annotated[float, typer.Option(min=0, help="Of a spot node in a day, assumed.")] = 1.0,
    restart_minutes: Annotated[float, typer.Option(min=0, help="From losing a node to the next new step.")] = 5.0,
    start_minutes: Annotated[
        float, typer.Option(min=0, help="Until the first step: machines, images, processes.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Hours, GPU-hours, node-hours, money, storage and requests of a run, each with how it came about.

    The speed is given, or measured in a run, or else counted by `raylens budget` for GPUs of an assumed kind; nodes
    follow from the workers and from the cores that decode for them. Spot nodes that train add restarts: each loses half
    of what is trained between two checkpoints, and the time to begin anew. Money is counted where the cluster's
    description has price_per_hour.

    Examples:

        raylens cost vit_b32 --spec cluster.yaml --pairs 12000000 --set data.train=s3://pets/shards

        raylens cost mine.yaml --spec cluster.yaml --from-run s3://pets/runs/trial

        raylens cost vit_l14 --spec spot.yaml --pairs 400000000 --pairs-per-second 21000 --interruptions 2 --json
    """
    from raylens.cluster.description import load_spec
    from raylens.workloads.cost.cost import cost as of
    from raylens.workloads.cost.inputs import Given, data_of, rate_of
    from raylens.workloads.cost.page import cost_page
    from raylens.workloads.cost.terms import Spot
    from raylens.workloads.recipes import configure

    config, cluster = configure(source, changes or ()), load_spec(spec)
    given = Given(pairs_per_second, from_run, pairs_per_core, pairs, bytes_per_pair)
    spot = Spot(interruptions, restart_minutes)
    found = of(config, cluster, rate_of(config, given), data_of(config, given), spot, start_minutes)
    print_page(cost_page(f"{config.name} on {cluster.name}", found, as_json))
