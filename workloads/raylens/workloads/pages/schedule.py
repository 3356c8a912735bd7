"""The learning rates and the temperature of a run, drawn before it starts."""

from pathlib import Path

from matplotlib.figure import Figure

from raylens.config import RunConfig, ScheduleConfig
from raylens.data import Manifest, Source
from raylens.data.build_plan import build_plan
from raylens.data.manifest import fingerprint
from raylens.errors import ConfigError
from raylens.models import DualEncoder, unfilled
from raylens.storage import open_store
from raylens.train.engine.forward import forward_of
from raylens.train.engine.optimizer import parameter_groups
from raylens.train.loop.schedule import Moment, learning_rate, log_scale_at

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
    schedule_figure(config).savefig(path)


def schedule_figure(config: RunConfig) -> Figure:
    """The picture: rates above, and below the logarithm of the logit scale where it follows a schedule."""
    steps = _steps(config)
    places = sorted({place * (steps - 1) // (POINTS - 1) for place in range(POINTS)})
    scheduled = config.objective.end_temperature is not None
    figure = Figure(figsize=(8.0, 6.4 if scheduled else 4.0), layout="constrained")
    axes = figure.subplots(2 if scheduled else 1, 1, sharex=True, squeeze=False)[:, 0]
    for label, (schedule, factor) in _curves(config).items():
        peak = config.optim.peak_lr * factor
        axes[0].plot(places, [learning_rate(peak, schedule, Moment(step, steps)) for step in places], label=label)
    axes[0].set(ylabel="learning rate", title=f"{config.name}: {steps:,} steps at global batch {config.global_batch:,}")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    if scheduled:
        scales = [log_scale_at(config.objective, Moment(step, steps)) or 0.0 for step in places]
        axes[1].plot(places, scales)
        axes[1].set(ylabel="ln(logit scale)")
    axes[-1].set_xlabel("step")
    return figure


def _curves(config: RunConfig) -> dict[str, Curve]:
    """By label, what is drawn; all that learns alike has one curve."""
    alike: dict[Curve, list[str]] = {}
    for part, curves in _parts(config).items():
        for place, curve in _shown(curves).items():
            alike.setdefault(curve, []).append(f"{part}{place}")
    return {"all" if len(alike) == 1 else ", ".join(labels): curve for curve, labels in alike.items()}


def _shown(curves: list[Curve]) -> dict[str, Curve]:
    """Of a part's, from its output to its input; with a decay from block to block, those at its two ends."""
    if len(curves) == 1:
        return {"": curves[0]}
    behind, last, *_, before = curves
    ends = {" (last block)": last, " (first block)": curves[-2]} if len(curves) > 3 else {" (its block)": last}
    return {" (behind its blocks)": behind, **ends, " (before its blocks)": before}


def _parts(config: RunConfig) -> dict[str, list[Curve]]:
    """Of each part of the model that learns, its curves, the fastest first; as the optimiser has them."""
    eager = config.model_copy(update={"towers": config.towers.model_copy(update={"compile": False})})
    with unfilled():  # the names alone are of interest
        model = DualEncoder(config.model, end_id=1, mean=(0.5,) * 3, std=(0.5,) * 3)
    groups = parameter_groups(forward_of(model, eager), config.optim)
    of = {id(one): (group["schedule"], group["lr_scale"]) for group in groups for one in group["params"]}
    found: dict[str, set[Curve]] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in of:
            found.setdefault(PARTS.get(name.partition(".")[0], "temperature"), set()).add(of[id(parameter)])
    return {part: sorted(curves, key=lambda curve: -curve[1]) for part, curves in found.items()}


def _steps(config: RunConfig) -> int:
    """Steps of the run, whose data set must be indexed if the length is in epochs.

    Raises:
        ConfigError: it is not.
    """
    if config.length.samples_seen is not None:
        return config.length.steps(0, config.global_batch)
    cache = open_store(config.storage) / "manifests"
    manifests = []
    for one in config.data.train:
        source, shards = Source.open(one)
        manifest = Manifest.load(cache / fingerprint(source, shards))
        if manifest is None:
            raise ConfigError(
                f"length.epochs = {config.length.epochs:g}: how many steps that is hangs on the size of {one.uri}, "
                "which is not indexed; index it (raylens data index), or give --set length.epochs=null --set "
                "length.samples_seen=1000000"
            )
        manifests.append(manifest)
    epoch = sum(order.epoch_size for order in build_plan(config, manifests).orders)
    return config.length.steps(epoch, config.global_batch)
