"""The typed configuration of a run: one frozen tree, YAML in and out, one key changed at a time."""

from raylens.config.data import DataConfig, SourceConfig
from raylens.config.evaluation import EvaluationConfig
from raylens.config.model import ModelConfig
from raylens.config.node import Node, explain, validated
from raylens.config.objective import ObjectiveConfig
from raylens.config.optim import GroupConfig, GroupsConfig, OptimConfig, ScheduleConfig
from raylens.config.overrides import apply_overrides, merge, parse_assignment
from raylens.config.resources import CheckpointConfig, ScaleConfig, ZeroConfig
from raylens.config.run import LengthConfig, RunConfig, TowersConfig
from raylens.config.towers import BagOfWordsConfig, ResNetConfig, TextTransformerConfig, VisionTransformerConfig
from raylens.config.tracking import MlflowConfig, TrackingConfig, WandbConfig
from raylens.config.yaml_io import dump_yaml, load_yaml

__all__ = [
    "BagOfWordsConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "GroupConfig",
    "GroupsConfig",
    "LengthConfig",
    "MlflowConfig",
    "ModelConfig",
    "Node",
    "ObjectiveConfig",
    "OptimConfig",
    "ResNetConfig",
    "RunConfig",
    "ScaleConfig",
    "ScheduleConfig",
    "SourceConfig",
    "TextTransformerConfig",
    "TowersConfig",
    "TrackingConfig",
    "VisionTransformerConfig",
    "WandbConfig",
    "ZeroConfig",
    "apply_overrides",
    "dump_yaml",
    "explain",
    "load_yaml",
    "merge",
    "parse_assignment",
    "validated",
]
