"""The learning rates and the temperature of a run, drawn before it starts."""

from pathlib import Path
from typing import TYPE_CHECKING

from raylens.config import RunConfig, ScheduleConfig
from raylens.data import Manifest, Source, build_plan, fingerprint
from raylens.errors import ConfigError
from raylens.models import DualEncoder, unfilled
from raylens.report import canvas, count_text
from raylens.storage import open_store
from raylens.train.engine import build_forward, parameter_groups
from raylens.train.loop import TrainingProgress, learning_rate, log_scale_at

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_schedule", "schedule_figure"]

Curve = tuple[ScheduleConfig, float]
"""A schedule, and the factor on the peak that it is drawn at."""

POINTS = 1000
FORMATS = (".png", ".svg", ".pdf")
PARTS = {"visual": "image", "text": "text"}


def plot_schedule(config: RunConfig, path: Path) -> None:
    """Write a picture of the rates of each part of the model, and of the temperature where it is scheduled.

    Raises:
        ConfigError: the file's ending is none that can be drawn, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--plot-schedule {path}: the file must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot-schedule {path}: there is no folder {path.parent}")
    schedule_figure(config).savefig(path, dpi=72)


def schedule_figure(config: RunConfig) -> "Figure":
    """Return the picture: rates above, and below the logarithm of the logit scale where it follows a schedule."""
    steps = _steps(config)
    drawn = sorted({place * (steps - 1) // (POINTS - 1) for place in range(POINTS)})
    scheduled = config.objective.end_temperature is not None
    with canvas(800, 640 if scheduled else 400, standalone=True) as picture:
        axes = picture.figure.subplots(2 if scheduled else 1, 1, sharex=True, squeeze=False)[:, 0]
        for label, (schedule, factor) in _curves(config).items():
            peak = config.optim.peak_lr * factor
            axes[0].plot(
                drawn, [learning_rate(peak, schedule, TrainingProgress(step, steps)) for step in drawn], label=label
            )
        title = f"{config.name}: {count_text(steps, 'steps')} at global batch {config.global_batch:,}"
        axes[0].set(ylabel="learning rate", title=title, ylim=(0, None))
        axes[0].legend()
        if scheduled:
            axes[1].plot(
                drawn, [log_scale_at(config.objective, TrainingProgress(step, steps)) or 0.0 for step in drawn]
            )
            axes[1].set(ylabel="ln(logit scale)")
        axes[-1].set_xlabel("step")
        return picture.figure


def _curves(config: RunConfig) -> dict[str, Curve]:
    """Return the curves to draw, by label; parts that learn alike share a curve."""
    alike: dict[Curve, list[str]] = {}
    for part, curves in _parts(config).items():
        for place, curve in _shown(curves).items():
            alike.setdefault(curve, []).append(f"{part}{place}")
    return {"all" if len(alike) == 1 else ", ".join(labels): curve for curve, labels in alike.items()}


def _shown(curves: list[Curve]) -> dict[str, Curve]:
    """Return a part's curves from its output to its input; with a decay from block to block, those at its two ends."""
    if len(curves) == 1:
        return {"": curves[0]}
    behind, last, *_, before = curves
    ends = {" (last block)": last, " (first block)": curves[-2]} if len(curves) > 3 else {" (its block)": last}
    return {" (behind its blocks)": behind, **ends, " (before its blocks)": before}


def _parts(config: RunConfig) -> dict[str, list[Curve]]:
    """Return for each part of the model that learns its curves, the fastest first, as the optimiser has them."""
    eager = config.model_copy(update={"towers": config.towers.model_copy(update={"compile": False})})
    with unfilled():  # the names alone are of interest
        model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    groups = parameter_groups(build_forward(model, eager), config.optim)
    group_of = {
        id(parameter): (group["schedule"], group["lr_scale"]) for group in groups for parameter in group["params"]
    }
    curves: dict[str, set[Curve]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in group_of:
            curves.setdefault(PARTS.get(name.partition(".")[0], "temperature"), set()).add(group_of[id(parameter)])
    return {part: sorted(own, key=lambda curve: -curve[1]) for part, own in curves.items()}


def _steps(config: RunConfig) -> int:
    """Return the steps of the run, whose data set must be indexed if the length is in epochs.

    Raises:
        ConfigError: it is not.
    """
    if config.length.samples_seen is not None:
        return config.length.steps(0, config.global_batch)
    cache = open_store(config.storage) / "manifests"
    manifests = []
    for source_config in config.data.train:
        source, shards = Source.open(source_config)
        manifest = Manifest.load(cache / fingerprint(source, shards))
        if manifest is None:
            raise ConfigError(
                f"length.epochs = {config.length.epochs:g}: the number of steps depends on the size of "
                f"{source_config.uri}, which is not indexed; index it (raylens data index), or give "
                "--set length.epochs=null --set length.samples_seen=1000000"
            )
        manifests.append(manifest)
    epoch = sum(order.epoch_size for order in build_plan(config, manifests).orders)
    return config.length.steps(epoch, config.global_batch)
