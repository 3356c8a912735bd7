"""The nine models of Radford et al. 2021, with the hyperparameters of tables 18, 19 and 20.

Set data.train and the number of workers, which suits machines of eight GPUs.
"""

from raylens.config import (
    DataConfig,
    LengthConfig,
    ModelConfig,
    OptimConfig,
    ResNetConfig,
    RunConfig,
    ScaleConfig,
    SourceConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
)

__all__ = ["PAPER", "from_scratch"]

DATA = DataConfig(train=(SourceConfig(uri="data/train"),))
Towers = VisionTransformerConfig | ResNetConfig


def from_scratch(name: str, model: ModelConfig, peak_lr: float, *, workers: int = 8) -> RunConfig:
    """32 epochs at batch 32,768, with AdamW as table 19 has it for ResNets and table 20 for vision transformers."""
    vit = model.image.kind == "vit"
    return RunConfig(
        name=name,
        data=DATA,
        model=model,
        optim=OptimConfig(peak_lr=peak_lr, beta2=0.98 if vit else 0.999, eps=1e-6 if vit else 1e-8),
        scale=ScaleConfig(workers=workers, gpus_per_worker=1, cpus_per_worker=4),
    )


def _model(embed_dim: int, image: Towers, text_width: int) -> ModelConfig:
    # All text towers have 12 layers and heads of 64.
    text = TextTransformerConfig(width=text_width, heads=text_width // 64)
    return ModelConfig(embed_dim=embed_dim, image=image, text=text)


def rn50() -> RunConfig:
    """ResNet-50 at 224 pixels, with width 64."""
    return from_scratch("rn50", _model(1024, ResNetConfig(), 512), 5e-4)


def rn101() -> RunConfig:
    """ResNet-101 at 224 pixels, with width 64."""
    return from_scratch("rn101", _model(512, ResNetConfig(blocks=(3, 4, 23, 3)), 512), 5e-4)


def rn50x4() -> RunConfig:
    """ResNet-50 with four times the compute, at 288 pixels."""
    return from_scratch("rn50x4", _model(640, ResNetConfig(size=288, blocks=(4, 6, 10, 6), width=80), 640), 5e-4)


def rn50x16() -> RunConfig:
    """ResNet-50 with sixteen times the compute, at 384 pixels."""
    image = ResNetConfig(size=384, blocks=(6, 8, 18, 8), width=96)
    return from_scratch("rn50x16", _model(768, image, 768), 4e-4, workers=64)


def rn50x64() -> RunConfig:
    """ResNet-50 with sixty-four times the compute, at 448 pixels."""
    image = ResNetConfig(size=448, blocks=(3, 15, 36, 10), width=128)
    return from_scratch("rn50x64", _model(1024, image, 1024), 3.6e-4, workers=256)


def vit_b32() -> RunConfig:
    """Vision transformer, base, patches of 32, at 224 pixels."""
    return from_scratch("vit_b32", _model(512, VisionTransformerConfig(), 512), 5e-4)


def vit_b16() -> RunConfig:
    """Vision transformer, base, patches of 16, at 224 pixels."""
    return from_scratch("vit_b16", _model(512, VisionTransformerConfig(patch=16), 512), 5e-4, workers=32)


def vit_l14() -> RunConfig:
    """Vision transformer, large, patches of 14, at 224 pixels."""
    return from_scratch("vit_l14", _model(768, _large(224), 768), 4e-4, workers=256)


def vit_l14_336() -> RunConfig:
    """One more epoch of vit_l14 at 336 pixels: set start_from to a vit_l14 resized by `raylens models import`."""
    run = from_scratch("vit_l14_336", _model(768, _large(336), 768), 2e-5, workers=256)
    return run.model_copy(update={"length": LengthConfig(epochs=1)})


def _large(size: int) -> VisionTransformerConfig:
    return VisionTransformerConfig(size=size, patch=14, width=1024, layers=24, heads=16)


PAPER = {
    "rn50": rn50,
    "rn101": rn101,
    "rn50x4": rn50x4,
    "rn50x16": rn50x16,
    "rn50x64": rn50x64,
    "vit_b32": vit_b32,
    "vit_b16": vit_b16,
    "vit_l14": vit_l14,
    "vit_l14_336": vit_l14_336,
}
