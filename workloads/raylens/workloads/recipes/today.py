"""Recipes of models after the paper: small towers, SigLIP's loss, LAION's activation, a bag of words."""

from raylens.config import (
    BagOfWordsConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
)
from raylens.workloads.recipes.paper import from_scratch, vit_b16, vit_b32

__all__ = ["TODAY"]


def vit_s16() -> RunConfig:
    """Vision transformer, small, patches of 16: 60 million parameters in all."""
    image = VisionTransformerConfig(patch=16, width=384, heads=6)
    text = TextTransformerConfig(width=384, heads=6)
    return from_scratch("vit_s16", ModelConfig(embed_dim=384, image=image, text=text), 5e-4)


def vit_ti16() -> RunConfig:
    """Vision transformer, tiny, patches of 16: for small budgets and first tries."""
    image = VisionTransformerConfig(patch=16, width=192, heads=3)
    text = TextTransformerConfig(width=256, heads=4)
    return from_scratch("vit_ti16", ModelConfig(embed_dim=256, image=image, text=text), 1e-3)


def vit_b32_gelu() -> RunConfig:
    """vit_b32 with the exact GELU, as LAION's models have it."""
    run = vit_b32()
    return run.model_copy(update={"name": "vit_b32_gelu", "model": _with(run.model, activation="gelu")})


def vit_b32_sigmoid() -> RunConfig:
    """vit_b32 with SigLIP's sigmoid loss (Zhai et al. 2023): temperature 0.1 and bias -10 at the start."""
    return _sigmoid("vit_b32_sigmoid", vit_b32())


def vit_b16_sigmoid() -> RunConfig:
    """vit_b16 with SigLIP's sigmoid loss."""
    return _sigmoid("vit_b16_sigmoid", vit_b16())


def vit_b32_cbow() -> RunConfig:
    """vit_b32 with a bag of words for its text tower, the cheaper one of the paper's figure 3."""
    run = vit_b32()
    return run.model_copy(update={"name": "vit_b32_cbow", "model": _with(run.model, text=BagOfWordsConfig())})


def _sigmoid(name: str, run: RunConfig) -> RunConfig:
    optim: OptimConfig = run.optim.model_copy(update={"peak_lr": 1e-3, "weight_decay": 1e-4, "beta2": 0.95})
    changes = {
        "name": name,
        "model": _with(run.model, logit_bias=True),
        "objective": ObjectiveConfig(kind="sigmoid", temperature=0.1, max_logit_scale=300.0),
        "optim": optim,
    }
    return run.model_copy(update=changes)


def _with(model: ModelConfig, **changes: object) -> ModelConfig:
    return model.model_copy(update=changes)


TODAY = {
    "vit_s16": vit_s16,
    "vit_ti16": vit_ti16,
    "vit_b32_gelu": vit_b32_gelu,
    "vit_b32_sigmoid": vit_b32_sigmoid,
    "vit_b16_sigmoid": vit_b16_sigmoid,
    "vit_b32_cbow": vit_b32_cbow,
}
