"""``raylens data``: shards and their manifest."""

from typing import Annotated

import typer

from raylens.workloads.cli.options import Address, NumCpus

__all__ = ["app"]

app = typer.Typer(help="Look at image-text shards.", no_args_is_help=True)


@app.callback()
def _data() -> None:
    """Keep the group a group while it has one command."""


@app.command()
def index(
    uri: Annotated[str, typer.Argument(help="Folder or s3://bucket/prefix that holds *.tar shards.")],
    manifests: Annotated[str, typer.Option(help="URI of the folder that keeps manifests.")] = "runs/manifests",
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Read every shard once and write the manifest: sizes, places, hashes, and what cannot be used."""
    from raylens.cluster import session
    from raylens.data.index import manifest_for
    from raylens.data.stream import ray_map
    from raylens.storage import open_store

    data = open_store(uri)
    with session(address, num_cpus):
        manifest = manifest_for(data, open_store(manifests), ray_map)
    size = sum(shard.size for shard in manifest.shards)
    typer.echo(f"{len(manifest):,} samples in {len(manifest.shards)} shards, {size / 1e6:,.1f} MB")
    typer.echo(f"rejected: {manifest.rejected.num_rows} ({manifest.rejected_summary()})")
    typer.echo(f"manifest: {manifest.digest}")
