"""Recipes: functions that return a complete `RunConfig`. A file or ``--set`` changes single keys of one."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from raylens.config import (
    CheckpointConfig,
    DataConfig,
    ImageTowerConfig,
    LengthConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimConfig,
    RunConfig,
    ScaleConfig,
    SourceConfig,
    TextTowerConfig,
    apply_overrides,
    load_yaml,
    merge,
    validated,
)
from raylens.errors import ConfigError

__all__ = ["RECIPES", "configure", "digits", "vit_b32"]


def digits() -> RunConfig:
    """A small encoder for the 8 x 8 digit scans of the quickstart: two workers, about a minute on two cores."""
    return RunConfig(
        name="digits",
        storage="quickstart/runs",
        registry="quickstart/registry",
        global_batch=128,
        data=DataConfig(
            train=(SourceConfig(uri="quickstart/data/train"),), run_length=8, runs_per_unit=32, crop_min_scale=0.7
        ),
        model=ModelConfig(
            embed_dim=64,
            image=ImageTowerConfig(size=32, patch=8, width=96, layers=4, heads=3),
            text=TextTowerConfig(context=24, vocab=512, width=96, layers=2, heads=3),
        ),
        objective=ObjectiveConfig(temperature=0.07),
        optim=OptimConfig(peak_lr=2e-3, warmup_steps=40, weight_decay=0.1),
        length=LengthConfig(epochs=30),
        scale=ScaleConfig(workers=2),
        checkpoint=CheckpointConfig(every_steps=100, keep_last=2),
    )


def vit_b32() -> RunConfig:
    """ViT-B/32 with the hyperparameters of Radford et al. 2021 (tables 18 and 20): set data.train, and scale it."""
    return RunConfig(
        name="vit_b32",
        data=DataConfig(train=(SourceConfig(uri="data/train"),)),
        scale=ScaleConfig(workers=8, gpus_per_worker=1, cpus_per_worker=4),
    )


RECIPES: Mapping[str, Callable[[], RunConfig]] = {"digits": digits, "vit_b32": vit_b32}


def configure(source: str, assignments: Sequence[str] = ()) -> RunConfig:
    """A recipe's name or a YAML file, with ``key=value`` assignments on top, to a checked configuration.

    A file is either complete or names a recipe under ``recipe:`` and the keys that it changes.

    Raises:
        ConfigError: the recipe, the file or a key is unknown, or a value is not allowed.
    """
    tree = _from_file(Path(source)) if source.endswith((".yaml", ".yml")) else _from_recipe(source)
    return validated(RunConfig, apply_overrides(tree, assignments))


def _from_recipe(name: str) -> dict[str, Any]:
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; recipes: {', '.join(RECIPES)}. A file must end in .yaml")
    return RECIPES[name]().model_dump(mode="json")


def _from_file(path: Path) -> dict[str, Any]:
    try:
        tree = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; recipes: {', '.join(RECIPES)}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read {path}: not UTF-8 text") from None
    base = tree.pop("recipe", None)
    return tree if base is None else merge(_from_recipe(str(base)), tree)
