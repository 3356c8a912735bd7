"""The work of ``raylens models``: import, export and interpolate registered models."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from raylens.config import Activation
from raylens.errors import ConfigError
from raylens.inputs import Tokenizer
from raylens.interop import FORMATS, read_foreign, write_foreign
from raylens.registry import Encoder, Registry, interpolate

__all__ = ["export_text", "import_text", "interpolation_text"]


def import_text(
    source: Path, name: str, registry: str, tokenizer: Path | None, activation: str | None, image_size: int | None
) -> Iterator[str]:
    """Read a checkpoint, check that it can embed, register it, and yield lines about the result.

    Raises:
        ConfigError: the activation is unknown, or the model cannot have that image size.
        BundleError: the checkpoint cannot be read, or differs from its configuration.
    """
    if activation not in (None, *get_args(Activation)):
        raise ConfigError(f"--activation {activation}: it must be one of {', '.join(get_args(Activation))}")
    foreign = read_foreign(source, activation=activation)  # type: ignore[arg-type] # checked above
    if image_size is not None:
        foreign = foreign.resized(image_size)
    bundle = foreign.bundle(Tokenizer.from_file(tokenizer) if tokenizer else None, source.name)
    Encoder(bundle)
    version = Registry(registry).publish(name, bundle)
    image, text = bundle.config.image, bundle.config.text
    numbers, config = sum(tensor.numel() for tensor in bundle.weights.values()), bundle.config
    yield f"{version} in {registry}: read as {foreign.format}, {numbers / 1e6:,.1f} M numbers"
    yield f"image {image.kind} at {image.size} px, text {text.kind}, {config.embed_dim} wide, {config.activation}"
    yield from (f"note: {note}" for note in foreign.notes)


def export_text(model: str, target: Path, form: str, registry: str) -> str:
    """Write a registered model in a format of other programs.

    Raises:
        ConfigError: the format is unknown.
        BundleError: the format has no such architecture.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form}: it must be one of {', '.join(FORMATS)}")
    version, encoder = Registry(registry).load(model)
    write_foreign(encoder.bundle, target, form)
    return f"{version} as {form} in {target}"


def interpolation_text(base: str, tuned: str, alphas: Sequence[float], name: str, registry: str) -> Iterator[str]:
    """Publish a version for each share in their order, and yield a line for each.

    Raises:
        NotFoundError: there is no such model.
        ConfigError: a share is out of range.
        BundleError: the two differ in more than their weights.
    """
    models = Registry(registry)
    (first, before), (second, after) = models.load(base), models.load(tuned)
    # All are made before any is published: a share out of range must not leave some of the models behind.
    made = [(alpha, interpolate(before.bundle, after.bundle, alpha)) for alpha in alphas]
    for alpha, bundle in made:
        yield f"{models.publish(name, bundle)}  {1 - alpha:.4g} of {first}, {alpha:.4g} of {second}"
