"""``raylens budget``: what a run takes of memory, network and time, before it is started."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from raylens.errors import ConfigError
from raylens.report.numbers import ABSENT, GIB, percent_text
from raylens.workloads.cli.options import Set

if TYPE_CHECKING:
    from raylens.config import RunConfig
    from raylens.estimate.step import Budget

__all__ = ["add_to"]

GB, TERA = 1e9, 1e12
COLUMNS = ("GPUs", "batch", "micro", "GiB", "state", "towers", "loss", "GB sent", "s", "network", "hides", "pairs/s")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("budget")(budget)


def budget(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")
    ],
    changes: Set = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of GPUs; scale.workers by default.")
    ] = None,
    global_batch: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Global batches; global_batch by default.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=2, help="Of each caption, marks included; the most there may be by default.")
    ] = None,
    memory: Annotated[float, typer.Option(metavar="GIB", help="Of one GPU; 90% of it may be used.")] = 80.0,
    tflops: Annotated[float, typer.Option(help="Dense bf16 (fp16) TFLOP/s of one GPU.")] = 989.0,
    mfu: Annotated[float, typer.Option(help="Share of the rate that a step's operations reach.")] = 0.4,
    node_size: Annotated[int, typer.Option(min=1, help="GPUs of a node.")] = 8,
    inside: Annotated[float, typer.Option(metavar="GB/S", help="One GPU to another in a node, one way.")] = 450.0,
    between: Annotated[float, typer.Option(metavar="GB/S", help="One GPU's network adapter, one way.")] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON, in bytes and seconds.")] = False,
) -> None:
    """Memory of each GPU, bytes over the network and time of a step, for each number of GPUs and global batch.

    Counted from the model without building it: weights, gradients, masters, moments and the average by zero.stage and
    precision; what the forward pass keeps, by towers.checkpoint_blocks; the loss's embeddings and tiles; and every
    collective that DeepSpeed and the loss call, as rings. The micro-batch is scale.micro_batch, or the largest power of
    two that fits.

    Assumed, to be changed by options: the vendor's figures for an H100 SXM (80 GB, 989 TFLOP/s in bf16, NVLink with 450
    GB/s one way, an adapter of 50 GB/s for each GPU), and that a step's operations run at 40% of the rate. These are
    no measurements. Time is without any overlap of network and computing; "hides" says whether it could be hidden.
    docs/scale.md says what is not modelled.

    Examples:

        raylens budget vit_l14 --set precision=amp_bf16

        raylens budget vit_l14 --set zero.stage=2 --workers 8,64,512 --global-batch 32768,131072

        raylens budget vit_b32 --set precision=amp_bf16 --memory 24 --tflops 121 --inside 32 --between 12 --json
    """
    from raylens.estimate.machine import Machine
    from raylens.estimate.step import budget as of
    from raylens.workloads.recipes import configure

    config = configure(source, changes or ())
    machine = Machine(
        memory_bytes=memory * GIB,
        flops=tflops * TERA,
        mfu=mfu,
        node_size=node_size,
        inside_bandwidth=inside * GB,
        between_bandwidth=between * GB,
    )
    found = [
        of(config.model_copy(update={"global_batch": batch}), machine, workers=count, tokens=tokens)
        for batch in _numbers(global_batch, "--global-batch", config.global_batch)
        for count in _numbers(workers, "--workers", config.scale.workers)
    ]
    if as_json:
        typer.echo(json.dumps([one.as_dict() for one in found]))
        return
    Console().print(_table(config, found))


def _numbers(text: str | None, option: str, otherwise: int) -> list[int]:
    if text is None:
        return [otherwise]
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise ConfigError(f"{option} {text}: write numbers from 1 on with commas between them, e.g. 8,64")
    return numbers


def _table(config: "RunConfig", found: Sequence["Budget"]) -> Table:
    blocks = ", checkpointed blocks" if config.towers.checkpoint_blocks else ""
    table = Table(
        title=f"{config.name}: {config.precision}, ZeRO {config.zero.stage}{blocks}",
        caption="micro: pairs at a time x times. GiB: of one GPU at its peak; of it state, towers' activations, loss. "
        "GB sent: by one GPU in a step. s: of a step, nothing hidden; of it over the network. hides: whether gradients "
        "take less time than what can be computed beside them. days: of 12.8 billion pairs.",
    )
    for column in (*COLUMNS, "days"):
        table.add_column(column, justify="right")
    for one in found:
        table.add_row(*_row(one))
    return table


def _row(one: "Budget") -> list[str]:
    memory = one.memory
    fitting = f"{one.micro_batch:,} x {one.micro_batches:,}" if one.fits else "nothing fits"
    sizes = [memory.total, memory.state, memory.activations, memory.loss]
    left = [f"{one.workers:,}", f"{one.global_batch:,}", fitting, *(f"{size / GIB:.1f}" for size in sizes)]
    if not one.fits:
        return [*left, *[ABSENT] * 6]
    sent = f"{one.traffic.total / GB:,.1f}"
    share = f"{percent_text(one.network_seconds / one.seconds)}"
    right = [share, "yes" if one.hides else "no", f"{one.pairs_per_second:,.0f}", f"{one.days():,.1f}"]
    return [*left, sent, f"{one.seconds:,.2f}", *right]
