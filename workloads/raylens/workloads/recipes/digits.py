"""The recipe of the quickstart, on scikit-learn's scans of digits."""

from raylens.config import (
    CheckpointConfig,
    DataConfig,
    LengthConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    ScheduleConfig,
    SourceConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
)

__all__ = ["digits"]


def digits() -> RunConfig:
    """A small encoder for the 8 x 8 digit scans of the quickstart: two workers, about a minute on two cores."""
    return RunConfig(
        name="digits",
        storage="quickstart/runs",
        registry="quickstart/registry",
        global_batch=128,
        data=DataConfig(
            train=(SourceConfig(uri="quickstart/data/train"),), chunk_size=8, chunks_per_block=32, crop_min_scale=0.7
        ),
        model=ModelConfig(
            embed_dim=64,
            image=VisionTransformerConfig(size=32, patch=8, width=96, layers=4, heads=3),
            text=TextTransformerConfig(context=24, vocab=640, width=96, layers=2, heads=3),
        ),
        objective=ObjectiveConfig(temperature=0.07),
        optim=OptimConfig(peak_lr=2e-3, schedule=ScheduleConfig(warmup_steps=40), weight_decay=0.1),
        length=LengthConfig(epochs=30),
        scale=ScaleConfig(workers=2),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=2),
    )
