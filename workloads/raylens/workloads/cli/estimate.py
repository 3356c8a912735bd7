"""``raylens estimate``: the memory, the network traffic and the time of a training step, before a run is started."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from raylens.errors import ConfigError
from raylens.report import ABSENT, GIB, percent_text
from raylens.workloads.cli.options import Set

if TYPE_CHECKING:
    from raylens.config import RunConfig
    from raylens.estimate import Estimate

__all__ = ["add_to"]

GB, TERA = 1e9, 1e12
COLUMNS = ("GPUs", "batch", "micro", "GiB", "state", "towers", "loss", "GB sent", "s", "network", "hides", "pairs/s")


def add_to(app: typer.Typer) -> None:
    """Register the command in an application."""
    app.command("estimate")(estimate)


def estimate(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE|FILE.yaml", help="Name of a recipe, or path of a configuration file.")
    ],
    changes: Set = None,
    workers: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Numbers of GPUs; resources.workers by default.")
    ] = None,
    global_batch: Annotated[
        str | None, typer.Option(metavar="N,N,...", help="Global batch sizes; global_batch by default.")
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(min=2, help="Tokens of a caption, start and end included; the model's context by default."),
    ] = None,
    memory: Annotated[
        float, typer.Option(metavar="GIB", help="Memory of one GPU, of which tensors take at most 90%.")
    ] = 80.0,
    tflops: Annotated[float, typer.Option(help="Peak rate of one GPU in dense bf16 (fp16), in TFLOP/s.")] = 989.0,
    mfu: Annotated[float, typer.Option(help="Share of the peak rate that the operations of a step reach.")] = 0.4,
    node_size: Annotated[int, typer.Option(min=1, help="Number of GPUs in a node.")] = 8,
    inside: Annotated[
        float, typer.Option(metavar="GB/S", help="Bandwidth between the GPUs of a node, in one direction.")
    ] = 450.0,
    between: Annotated[
        float, typer.Option(metavar="GB/S", help="Bandwidth of one GPU's network adapter, in one direction.")
    ] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON, in bytes and seconds.")] = False,
) -> None:
    """Estimate memory, network traffic and time of a training step for each number of GPUs and global batch.

    The model is counted without being built: weights, gradients, master weights, moments and the moving average by
    zero.stage and precision; activations by towers.checkpoint_blocks; embeddings and tiles of the loss; and every
    collective that DeepSpeed and the loss call, as rings. The micro-batch is resources.micro_batch, or the largest
    power of two that fits.

    The options change what is assumed: the vendor's numbers for an H100 SXM (80 GB, 989 TFLOP/s in bf16, NVLink with
    450 GB/s in one direction, an adapter of 50 GB/s for each GPU), and that the operations of a step reach 40% of the
    peak rate. None of these is a measurement. The time does not overlap network and computation; the column
    "hides" says whether the traffic of the gradients would fit beside the computation.
    docs/scale.md lists what is not modelled.

    Examples:

        raylens estimate vit_l14 --set precision=amp_bf16

        raylens estimate vit_l14 --set zero.stage=2 --workers 8,64,512 --global-batch 32768,131072

        raylens estimate vit_b32 --set precision=amp_bf16 --memory 24 --tflops 121 --inside 32 --between 12 --json
    """
    from raylens.estimate import Machine
    from raylens.estimate import estimate as estimate_step
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
    estimates = [
        estimate_step(config.model_copy(update={"global_batch": batch}), machine, workers=count, tokens=tokens)
        for batch in _numbers(global_batch, "--global-batch", config.global_batch)
        for count in _numbers(workers, "--workers", config.resources.workers)
    ]
    if as_json:
        typer.echo(json.dumps([step.as_dict() for step in estimates]))
        return
    Console().print(_table(config, estimates))


def _numbers(text: str | None, option: str, default: int) -> list[int]:
    if text is None:
        return [default]
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if min(numbers) < 1:
        raise ConfigError(f"{option} {text}: expected positive integers separated by commas, e.g. 8,64")
    return numbers


def _table(config: "RunConfig", estimates: Sequence["Estimate"]) -> Table:
    blocks = ", checkpointed blocks" if config.towers.checkpoint_blocks else ""
    table = Table(
        title=f"{config.name}: {config.precision}, ZeRO {config.zero.stage}{blocks}",
        caption="micro: micro-batch x number of micro-batches. GiB: peak memory of one GPU, of which are state, "
        "activations of the towers, and loss. GB sent: by one GPU in a step. s: seconds of a step without overlap, of "
        "which network. hides: whether the gradients take less time than the computation beside them. days: for 12.8 "
        "billion pairs.",
    )
    for column in (*COLUMNS, "days"):
        table.add_column(column, justify="right")
    for step in estimates:
        table.add_row(*_row(step))
    return table


def _row(step: "Estimate") -> list[str]:
    memory = step.memory
    micro = f"{step.micro_batch:,} x {step.micro_batches:,}" if step.fits else "nothing fits"
    sizes = [memory.total, memory.state, memory.activations, memory.loss]
    left = [f"{step.workers:,}", f"{step.global_batch:,}", micro, *(f"{size / GIB:.1f}" for size in sizes)]
    if not step.fits:
        return [*left, *[ABSENT] * 6]
    sent = f"{step.traffic.total / GB:,.1f}"
    share = percent_text(step.network_seconds / step.seconds)
    right = [share, "yes" if step.hides else "no", f"{step.pairs_per_second:,.0f}", f"{step.days():,.1f}"]
    return [*left, sent, f"{step.seconds:,.2f}", *right]
