"""The typed configuration of a run: one frozen tree, YAML in and out, one key changed at a time."""

from raylens.config.model import ModelConfig
from raylens.config.node import Node, explain, validated
from raylens.config.overrides import apply_overrides, merge, parse_assignment
from raylens.config.run import (
    CheckpointConfig,
    DataConfig,
    LengthConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    SourceConfig,
    TowersConfig,
    ZeroConfig,
)
from raylens.config.towers import BagOfWordsConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.config.yaml_io import dump_yaml, load_yaml

__all__ = [
    "BagOfWordsConfig",
    "CheckpointConfig",
    "DataConfig",
    "LengthConfig",
    "ModelConfig",
    "Node",
    "ObjectiveConfig",
    "OptimConfig",
    "ResNetConfig",
    "RunConfig",
    "ScaleConfig",
    "SourceConfig",
    "TextTransformerConfig",
    "TowersConfig",
    "VisionTransformerConfig",
    "ZeroConfig",
    "apply_overrides",
    "dump_yaml",
    "explain",
    "load_yaml",
    "merge",
    "parse_assignment",
    "validated",
]
