"""The training settings of a model's towers: what is locked, dropped, recomputed or compiled."""

from raylens.config import TowersConfig
from raylens.models.dual_encoder import DualEncoder
from raylens.models.transformer import Block, Transformer
from raylens.models.vit import VisionTransformer

__all__ = ["prepare_towers"]


def prepare_towers(model: DualEncoder, config: TowersConfig) -> DualEncoder:
    """Apply the settings to a model, put it in training mode and return it."""
    model.lock(image=config.lock_image, text=config.lock_text)
    model.train()
    if isinstance(model.visual, VisionTransformer):
        model.visual.patch_dropout = config.patch_dropout
    for module in model.modules():
        if isinstance(module, Transformer):
            module.checkpointed = config.checkpoint_blocks
        if isinstance(module, Block):
            module.dropout = config.dropout
            if config.compile:
                module.compile(dynamic=True)
    return model
