"""The typed configuration of a run: one frozen tree, YAML in and out, one key changed at a time."""

from typing import TYPE_CHECKING

from raylens.config.checkpoint import CheckpointConfig
from raylens.config.data import DataConfig, SourceConfig
from raylens.config.evaluation import EvaluationConfig
from raylens.config.model import (
    BagOfWordsConfig,
    ModelConfig,
    ResNetConfig,
    TextTransformerConfig,
    VisionTransformerConfig,
)
from raylens.config.node import Node, explain, validated
from raylens.config.objective import ObjectiveConfig
from raylens.config.optim import GroupConfig, GroupsConfig, OptimConfig, ScheduleConfig
from raylens.config.resources import ResourcesConfig
from raylens.config.run import LengthConfig, RunConfig
from raylens.config.settings_file import SettingsFile
from raylens.config.towers import TowersConfig
from raylens.config.tracking import MlflowConfig, TrackingConfig, WandbConfig
from raylens.config.tree import apply_overrides, differences, flatten, merge, parse_assignment
from raylens.config.yaml_io import dump_yaml, load_yaml
from raylens.config.zero import ZeroConfig
from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.config.evaluation import Goal
    from raylens.config.model import Activation
    from raylens.config.tree import value_text

__all__ = [
    "Activation",
    "BagOfWordsConfig",
    "CheckpointConfig",
    "DataConfig",
    "EvaluationConfig",
    "Goal",
    "GroupConfig",
    "GroupsConfig",
    "LengthConfig",
    "MlflowConfig",
    "ModelConfig",
    "Node",
    "ObjectiveConfig",
    "OptimConfig",
    "ResNetConfig",
    "ResourcesConfig",
    "RunConfig",
    "ScheduleConfig",
    "SettingsFile",
    "SourceConfig",
    "TextTransformerConfig",
    "TowersConfig",
    "TrackingConfig",
    "VisionTransformerConfig",
    "WandbConfig",
    "ZeroConfig",
    "apply_overrides",
    "differences",
    "dump_yaml",
    "explain",
    "flatten",
    "load_yaml",
    "merge",
    "parse_assignment",
    "validated",
    "value_text",
]

__getattr__ = lazy_face(
    __name__,
    {
        "Activation": "model",
        "Goal": "evaluation",
        "value_text": "tree",
    },
)
