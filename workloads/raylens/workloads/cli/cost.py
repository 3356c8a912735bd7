"""The command ``raylens cost``, which computes what a run takes on a described cluster."""

from pathlib import Path
from typing import Annotated

import typer

from raylens.workloads.cli.options import Set
from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command ``cost`` with the root."""
    app.command("cost")(cost)


def cost(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")
    ],
    spec: Annotated[
        Path, typer.Option(metavar="CLUSTER.yaml", help="Description of the cluster, see `raylens cluster init`.")
    ],
    changes: Set = None,
    pairs_per_second: Annotated[
        float | None,
        typer.Option(
            min=1e-6, help="Training speed of all workers together; by default from --from-run or an estimate."
        ),
    ] = None,
    from_run: Annotated[
        str | None, typer.Option(metavar="URI", help="Folder of a finished run, whose measured speed is used.")
    ] = None,
    pairs_per_core: Annotated[
        float | None, typer.Option(min=1e-6, help="Pairs a second that a core reads and decodes; 700 by default.")
    ] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs of an epoch; by default from the data's manifest.")
    ] = None,
    bytes_per_pair: Annotated[
        float | None, typer.Option(min=1, help="Bytes to read for a pair; by default from the manifest, or 57,000.")
    ] = None,
    interruptions: Annotated[
        float, typer.Option(min=0, help="Expected interruptions of each spot node per day.")
    ] = 1.0,
    restart_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes from the loss of a node to the next new step.")
    ] = 5.0,
    start_minutes: Annotated[
        float, typer.Option(min=0, help="Minutes until the first step: machines, images, processes.")
    ] = 10.0,
    as_json: AsJson = False,
) -> None:
    """Compute hours, GPU-hours, node-hours, money, storage and requests of a run, and say how each is derived.

    The speed is given, or measured in a run, or else counted by `raylens estimate` for GPUs of an assumed kind; nodes
    follow from the workers and from the cores that decode for them. Spot nodes that train add restarts: each loses half
    of what is trained between two checkpoints, and the time to begin anew. Money is counted where the cluster's
    description has price_per_hour.

    Examples:

        raylens cost vit_b32 --spec cluster.yaml --pairs 12000000 --set data.train=s3://pets/shards

        raylens cost mine.yaml --spec cluster.yaml --from-run s3://pets/runs/trial

        raylens cost vit_l14 --spec spot.yaml --pairs 400000000 --pairs-per-second 21000 --interruptions 2 --json
    """
    from raylens.cluster.description import load_spec
    from raylens.workloads.cost.cost import cost as cost_of
    from raylens.workloads.cost.inputs import CostOptions, data_of, rate_of
    from raylens.workloads.cost.page import cost_page
    from raylens.workloads.cost.terms import Spot
    from raylens.workloads.recipes import configure

    config, cluster = configure(source, changes or ()), load_spec(spec)
    options = CostOptions(pairs_per_second, from_run, pairs_per_core, pairs, bytes_per_pair)
    spot = Spot(interruptions, restart_minutes)
    rate, data = rate_of(config, options), data_of(config, options)
    figures = cost_of(config, cluster, rate, data, spot, start_minutes)
    print_page(cost_page(f"{config.name} on {cluster.name}", figures, as_json))
