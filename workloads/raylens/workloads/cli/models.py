"""The commands ``raylens models``, about the models of the registry."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from raylens.workloads.cli.options import Registry

__all__ = ["app"]

app = typer.Typer(help="List, show, promote, import, export, interpolate and profile models.", no_args_is_help=True)


@app.command("list")
def list_models(registry: Registry = "registry") -> None:
    """List all registered models with their versions and aliases."""
    from raylens.registry import Registry as Models

    models = Models(registry)
    table = Table("model", "created", "step", "aliases", "digest")
    for name in models.names():
        aliases = models.aliases(name)
        for version in models.versions(name):
            pointing = ", ".join(alias for alias, number in aliases.items() if number == version.number)
            step = "" if version.lineage.step is None else str(version.lineage.step)
            table.add_row(str(version), version.created, step, pointing, version.digest[:12])
    if not table.rows:
        typer.echo(
            f"no models in {models.store.describe()}; a run registers in the folder registry of its storage, "
            "e.g. --registry runs/registry",
            err=True,
        )
        return
    Console().print(table)


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION|@ALIAS]", help="E.g. digits@prod.")],
    registry: Registry = "registry",
    as_json: Annotated[bool, typer.Option("--json", help="Print one object of JSON instead.")] = False,
) -> None:
    """Show one version: its digest, the aliases that point to it, and where it comes from.

    Example:

        raylens models show digits@prod --registry runs/registry
    """
    from raylens.registry import Registry as Models
    from raylens.train.runs.settings import flat
    from raylens.workloads.pages.tables import pairs_table

    models = Models(registry)
    version = models.resolve(model)
    pointing = [alias for alias, number in models.aliases(version.name).items() if number == version.number]
    facts = {"model": str(version), "created": version.created, "digest": version.digest, "aliases": pointing}
    if as_json:
        typer.echo(json.dumps({**facts, "lineage": version.lineage.tree()}))
        return
    rows = {"created": version.created, "digest": version.digest, "aliases": ", ".join(pointing)}
    Console().print(pairs_table(str(version), {**rows, **flat(version.lineage.tree())}))


@app.command()
def promote(
    target: Annotated[str, typer.Argument(metavar="MODEL@ALIAS", help="The alias to move, e.g. digits@prod.")],
    version: Annotated[int, typer.Argument(help="The version number to which the alias will point.")],
    registry: Registry = "registry",
) -> None:
    """Point an alias at a version, atomically: `raylens models promote digits@prod 2`."""
    from raylens.errors import ConfigError
    from raylens.registry import Registry as Models

    name, at, alias = target.partition("@")
    if not at or not alias:
        raise ConfigError(f"{target!r}: write MODEL@ALIAS, e.g. digits@prod")
    typer.echo(f"{name}@{alias} is now {Models(registry).promote(name, alias, version)}")


@app.command("import")
def import_model(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder with open_clip_config.json or a saved CLIPModel; or a file: .pt (state dict, TorchScript), "
            ".bin or .safetensors."
        ),
    ],
    name: Annotated[str, typer.Argument(help="The model's name in the registry.")],
    registry: Registry = "registry",
    tokenizer: Annotated[
        Path | None,
        typer.Option(
            help="bpe_simple_vocab_16e6.txt.gz, tokenizer.json, or a folder; by default the checkpoint's own."
        ),
    ] = None,
    activation: Annotated[
        str | None, typer.Option(help="quick_gelu or gelu, for a file of weights that does not name it.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Interpolate a vision transformer's positions to this many pixels.")
    ] = None,
) -> None:
    """Register a checkpoint of OpenAI's CLIP, OpenCLIP or Hugging Face, with the same embeddings.

    No code of the file is executed: pickles are read as tensors only, TorchScript archives without their code.

    Examples:

        raylens models import ViT-B-32.pt b32 --tokenizer bpe_simple_vocab_16e6.txt.gz

        raylens models import laion2b_s34b_b79k/ laion --registry s3://bucket/registry
    """
    from raylens.workloads.models import import_text

    for line in import_text(source, name, registry, tokenizer, activation, image_size):
        typer.echo(line)


@app.command("export")
def export_model(
    model: Annotated[
        str, typer.Argument(metavar="MODEL[@VERSION|@ALIAS]", help="A registered model, e.g. digits@prod.")
    ],
    target: Annotated[Path, typer.Argument(help="A new folder; for the format openai a file.")],
    form: Annotated[str, typer.Option("--format", help="The format to write: openclip, hf or openai.")],
    registry: Registry = "registry",
) -> None:
    """Write a model in a format of other programs; importing it again gives the same weights, bit for bit.

    Example:

        raylens models export b32 b32-hf/ --format hf
    """
    from raylens.workloads.models import export_text

    typer.echo(export_text(model, target, form, registry))


@app.command("interpolate")
def interpolate_models(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The model that was fine-tuned, e.g. b32@1.")],
    tuned: Annotated[str, typer.Argument(metavar="TUNED", help="The fine-tuned model, e.g. birds@latest.")],
    name: Annotated[str, typer.Argument(help="The name of the interpolated models in the registry.")],
    alpha: Annotated[
        list[float] | None, typer.Option(help="Share of TUNED: 0 is BASE, 1 is TUNED; 0.5 by default. Repeatable.")
    ] = None,
    registry: Registry = "registry",
) -> None:
    """Register models whose weights lie between a model and its fine-tuned version (WiSE-FT).

    Fine-tuning often costs accuracy on images unlike those it was trained on. Interpolated models recover much of that
    accuracy and lose little of what fine-tuning gained: try several, and evaluate each.

    Example:

        raylens models interpolate b32@1 birds@latest birds-wise --alpha 0.25 --alpha 0.5 --alpha 0.75
    """
    from raylens.workloads.models import interpolation_text

    for line in interpolation_text(base, tuned, alpha or [0.5], name, registry):
        typer.echo(line)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a configuration file.")],
    batch: Annotated[int, typer.Option(min=1, help="Number of images and texts in a measured step.")] = 16,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each text, with start and end.")] = 16,
    measure: Annotated[bool, typer.Option(help="Build the model and time steps on this machine.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON instead.")] = False,
) -> None:
    """Show parameters and forward GFLOPs of each tower, memory of a sample, and throughput on this machine.

    Examples:

        raylens models profile vit_b32

        raylens models profile rn50x64 --no-measure
    """
    from raylens.workloads.pages.model_profile import profile_text

    for line in profile_text(name, batch, tokens, measure, as_json):
        typer.echo(line)
