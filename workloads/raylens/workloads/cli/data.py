"""The commands ``raylens data``, about data sets, their manifests, and the batches that a run will see."""

import json
from pathlib import Path
from typing import Annotated

import typer

from raylens.workloads.cli.options import Address, NumCpus, Set

__all__ = ["app"]

app = typer.Typer(help="Index, inspect, verify and pack image-text data sets.", no_args_is_help=True)

Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="A folder, s3://bucket/prefix or gs://bucket/prefix; or shards by name, with globs, {000..127} and {a,b}.",
    ),
]
Manifests = Annotated[
    str,
    typer.Option(help="URI of the folder with manifests; a run uses the folder manifests of its storage."),
]
Kind = Annotated[
    str, typer.Option("--format", help="tar, parquet, table or folder; by default the objects' names decide.")
]
ImageColumn = Annotated[
    str | None,
    typer.Option(help="Column of the image; by default image, jpg, img or another of the names in docs/streaming.md."),
]
CaptionColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the caption; by default caption, text, txt or another of the names in docs/streaming.md."
    ),
]
Source = Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")]


@app.command()
def index(
    uri: Uri,
    manifests: Manifests = "runs/manifests",
    kind: Kind = "auto",
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Read every shard once and write the manifest: locations, sizes and hashes of samples, and which are unusable.

    Training does this by itself. An interrupted index continues where it stopped; nothing is indexed twice.

    Examples:

        raylens data index 's3://bucket/cc12m/{00000..01242}.tar'

        raylens data index photos.parquet --image-column img --caption-column alt
    """
    from raylens.workloads.data_sets import Cluster, manifests_for
    from raylens.workloads.pages.data import manifest_lines, shard_progress, source_config

    source = source_config(uri, kind, image_column, caption_column)
    from raylens.storage import open_store

    with shard_progress("indexing") as progress:
        (manifest,) = manifests_for([source], open_store(manifests), Cluster(address, num_cpus), progress)
    for line in manifest_lines(manifest):
        typer.echo(line)


@app.command()
def stats(
    uri: Uri,
    sheet: Annotated[Path, typer.Option(help="File for a contact sheet of 64 samples.")] = Path("contact-sheet.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead.")] = False,
    manifests: Manifests = "runs/manifests",
    kind: Kind = "auto",
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Show counts, sizes, caption lengths, duplicates and histograms, and save a contact sheet (PNG).

    Example:

        raylens data stats quickstart/data/train --sheet digits.png
    """
    from raylens.data.stats.collect import collect
    from raylens.messages import warning, with_severity
    from raylens.report.contact_sheet import contact_sheet
    from raylens.storage import open_store
    from raylens.workloads.cli.options import check_file
    from raylens.workloads.data_sets import Cluster, manifests_for, sample_pairs
    from raylens.workloads.pages.data import shard_progress, source_config
    from raylens.workloads.pages.stats import stats_page

    source = source_config(uri, kind, image_column, caption_column)
    check_file(sheet, "--sheet")
    with shard_progress("indexing") as progress:
        (manifest,) = manifests_for([source], open_store(manifests), Cluster(address, num_cpus), progress)
    numbers = collect(manifest.parts(STATS_COLUMNS))
    sheet.write_bytes(contact_sheet(sample_pairs(manifest, SHEET_SAMPLES)))
    if as_json:
        typer.echo(json.dumps({**numbers.as_dict(), "manifest": manifest.digest, "contact_sheet": str(sheet)}))
    else:
        typer.echo(stats_page(numbers, uri))
        for line in manifest.warnings():
            typer.echo(with_severity(warning(line)))
        typer.echo(f"contact sheet: {sheet}")


@app.command()
def verify(
    source: Source,
    changes: Set = None,
    workers: Annotated[
        list[str] | None,
        typer.Option(
            metavar="N[,STEP:N...]",
            help="A topology: a number of workers, and the steps at which a resume changes it, e.g. 4,100:2. "
            "Repeatable. By default 1, 2, 3 and 4 workers where they divide the batch, and one that changes twice.",
        ),
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1e6,
            help="Epochs to verify; by default one, or as many as --workers and the run reach.",
        ),
    ] = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Prove from the plan that all topologies see the same batches and that each epoch is covered exactly once.

    No image is read. If the run has begun, its metrics are compared with the plan step by step.

    Example:

        raylens data verify digits --workers 4 --workers 4,100:2 --epochs 2
    """
    from raylens.workloads.pages.data import verify_text
    from raylens.workloads.recipes import configure

    for line in verify_text(configure(source, changes or ()), workers or [], epochs, address, num_cpus):
        typer.echo(line)


@app.command()
def explain(
    source: Source,
    step: Annotated[int, typer.Option(min=1, max=2**40, help="The step, counted from 1 as in metrics.jsonl.")],
    rank: Annotated[
        int | None, typer.Option(min=0, help="Show one worker's part of the batch; by default all of it.")
    ] = None,
    changes: Set = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line for each sample.")] = False,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """List the samples of a batch: data set, shard, key, epoch, crop in pixels, caption. No image is read.

    Example:

        raylens data explain digits --step 100 --rank 1
    """
    from raylens.workloads.pages.data import explain_text
    from raylens.workloads.recipes import configure

    config = configure(source, changes or ())
    for line in explain_text(config, step, rank, as_json, address, num_cpus):
        typer.echo(line)


@app.command()
def pack(
    uri: Uri,
    out: Annotated[str, typer.Argument(metavar="OUT", help="URI of an empty folder for the shards.")],
    per_shard: Annotated[int, typer.Option(min=1, help="Number of samples in a shard.")] = 1000,
    shorter_edge: Annotated[
        int | None, typer.Option(min=16, help="Scale larger images down to this many pixels, as JPEG.")
    ] = None,
    manifests: Manifests = "runs/manifests",
    kind: Kind = "auto",
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Write webdataset shards from an image folder, a CSV, TSV or JSONL, Parquet, or other shards.

    Unusable samples are left out and counted. The same command again continues where it was interrupted.

    Examples:

        raylens data pack photos/ shards/                  # photos/red_fox/1.jpg gets the caption "red fox"

        raylens data pack captions.csv s3://bucket/shards --shorter-edge 512
    """
    from raylens.workloads.pages.data import pack_text, source_config

    source = source_config(uri, kind, image_column, caption_column)
    for line in pack_text(source, out, manifests, per_shard, shorter_edge, address, num_cpus):
        typer.echo(line)


SHEET_SAMPLES = 64
STATS_COLUMNS = (
    "shard", "key", "width", "height", "image_length", "caption_count", "caption_length", "image_sha256",
    "caption_hash", "reason",
)  # fmt: skip
