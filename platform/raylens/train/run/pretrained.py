"""The pretrained model from which a run starts, in place of random weights."""

from raylens.config import RunConfig, differences
from raylens.errors import ConfigError
from raylens.models import at_resolution
from raylens.registry import Bundle, Registry

__all__ = ["load_pretrained"]


def load_pretrained(config: RunConfig) -> Bundle:
    """Load the model of ``config.start_from``, and resample its positions if only the image size differs.

    Raises:
        NotFoundError: there is no such model.
        ConfigError: its architecture differs; names each setting, with both values.
    """
    assert config.start_from is not None
    bundle = Registry(config.registry_uri).load(config.start_from)[1].bundle
    wanted, size = config.model, config.model.image.size
    if bundle.config.image.size != size and bundle.config.image.kind == wanted.image.kind == "vit":
        model, weights = at_resolution(bundle.config, dict(bundle.weights), size)
        preprocess = bundle.preprocess.model_copy(update={"size": size})
        bundle = Bundle(model, weights, bundle.tokenizer, preprocess, bundle.lineage)
    changed = differences(bundle.config.model_dump(mode="json"), wanted.model_dump(mode="json"), "model.")
    if changed:
        raise ConfigError(f"start_from = {config.start_from!r} has another architecture: {'; '.join(changed)}")
    return bundle
