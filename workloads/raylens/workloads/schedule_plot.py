"""The learning rates and the temperature of a run, drawn before it starts."""

from pathlib import Path

from matplotlib.figure import Figure

from raylens.config import RunConfig, ScheduleConfig
from raylens.data import Manifest, Source
from raylens.data.build_plan import build_plan
from raylens.data.manifest import fingerprint
from raylens.errors import ConfigError
from raylens.storage import open_store
from raylens.train.schedule import Moment, learning_rate, log_scale_at

__all__ = ["plot_schedule"]

POINTS = 1000
FORMATS = (".png", ".svg", ".pdf")


def plot_schedule(config: RunConfig, path: Path) -> None:
    """Write a picture of the rates of each part of the model, and of the temperature where it is scheduled.

    Raises:
        ConfigError: the file's ending is none that can be drawn, or its folder does not exist.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(f"--plot-schedule {path}: the file must end in {', '.join(FORMATS)}")
    if not path.parent.is_dir():
        raise ConfigError(f"--plot-schedule {path}: there is no folder {path.parent}")
    steps = _steps(config)
    places = sorted({place * (steps - 1) // (POINTS - 1) for place in range(POINTS)})
    scheduled = config.objective.end_temperature is not None
    figure = Figure(figsize=(8.0, 6.4 if scheduled else 4.0), layout="constrained")
    axes = figure.subplots(2 if scheduled else 1, 1, sharex=True, squeeze=False)[:, 0]
    for label, rates in _rates(config, places, steps).items():
        axes[0].plot(places, rates, label=label)
    axes[0].set(ylabel="learning rate", title=f"{config.name}: {steps:,} steps at global batch {config.global_batch:,}")
    axes[0].set_ylim(bottom=0)
    axes[0].legend()
    if scheduled:
        scales = [log_scale_at(config.objective, Moment(step, steps)) or 0.0 for step in places]
        axes[1].plot(places, scales)
        axes[1].set(ylabel="ln(logit scale)")
    axes[-1].set_xlabel("step")
    figure.savefig(path)


def _rates(config: RunConfig, places: list[int], steps: int) -> dict[str, list[float]]:
    """A curve for all of the model, and one more for each part that has another."""
    optim = config.optim

    def curve(schedule: ScheduleConfig | None, factor: float) -> list[float]:
        of = schedule or optim.schedule
        return [learning_rate(optim.peak_lr * factor, of, Moment(step, steps)) for step in places]

    found = {"all": curve(None, 1.0)}
    for name in ("image", "text", "logit_scale"):
        group = getattr(optim.groups, name)
        if (rates := curve(group.schedule, group.lr_factor)) != found["all"]:
            found[name] = rates
    return found


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
