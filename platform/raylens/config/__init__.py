"""The typed configuration of a run: one frozen tree, YAML in and out, one key changed at a time."""

from raylens.config.model import ImageTowerConfig, ModelConfig, TextTowerConfig
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
    ZeroConfig,
)
from raylens.config.yaml_io import dump_yaml, load_yaml

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "ImageTowerConfig",
    "LengthConfig",
    "ModelConfig",
    "Node",
    "ObjectiveConfig",
    "OptimConfig",
    "RunConfig",
    "ScaleConfig",
    "SourceConfig",
    "TextTowerConfig",
    "ZeroConfig",
    "apply_overrides",
    "dump_yaml",
    "explain",
    "load_yaml",
    "merge",
    "parse_assignment",
    "validated",
]
