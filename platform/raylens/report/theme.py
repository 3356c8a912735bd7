"""The training curve as an SVG that takes its colours from the page around it."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raylens.errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Curve", "curve_svg"]

MOST_POINTS = 600
# matplotlib wants colours; the page wants variables that change with its theme. Each stands in for one.
INK, MUTED, RULE, BLUE, ORANGE, GREEN = (f"#0a0b0{digit}" for digit in range(6))
VARIABLES = {INK: "--ink", MUTED: "--muted", RULE: "--rule", BLUE: "--blue", ORANGE: "--orange", GREEN: "--green"}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

CLEANING = (
    (r"<svg [^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" aria-hidden="true">'),
    (r"<style.*?</style>", ""),  # it would hold for the whole page
    (r" xmlns(:\w+)?=\"[^\"]*\"", ""),
    (r"<g id=\"[^\"]*\"", "<g"),
    # Families come from the page; matplotlib writes them in one property or, before 3.11, in the shorthand.
    (r"font-family: [^;\"]*(; )?", ""),
    (r"font: (\d+) ([\d.]+px) [^;\"]*", r"font-weight: \1; font-size: \2"),
    (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
)


@dataclass(frozen=True)
class Curve:
    """Training records as arrays, in the order of their steps."""

    step_K: NDArray[np.float64]
    loss_K: NDArray[np.float64]
    logit_scale_K: NDArray[np.float64]
    lr_K: NDArray[np.float64]
    samples_K: NDArray[np.float64]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]]) -> "Curve":
        """Read records with the keys step, loss, logit_scale, lr and samples_seen; all but step may be missing.

        Of records with one step the last stays: a resumed run repeats the steps since its checkpoint.

        Raises:
            DataError: a record without a step.
        """
        by_step: dict[float, Mapping[str, Any]] = {}
        for index, record in enumerate(records):
            if record.get("step") is None:
                raise DataError(f"record {index} of the training curve has no step: {dict(record)!r}")
            by_step[float(record["step"])] = record
        ordered = [by_step[step] for step in sorted(by_step)]

        def column(key: str) -> NDArray[np.float64]:
            return np.array([math.nan if (x := record.get(key)) is None else x for record in ordered], dtype=np.float64)

        return cls(column("step"), column("loss"), column("logit_scale"), column("lr"), column("samples_seen"))

    def __len__(self) -> int:
        return len(self.step_K)

    def describe(self) -> str:
        """The curve in a sentence, for readers who do not see it."""
        text = f"Training curve over steps {self.step_K[0]:,.0f} to {self.step_K[-1]:,.0f}"
        for name, values_K in (("loss", self.loss_K), ("logit scale", self.logit_scale_K)):
            known = values_K[np.isfinite(values_K)]
            if len(known):
                text += f"; {name} from {known[0]:.3g} to {known[-1]:.3g}"
        return text + "."


def curve_svg(curve: Curve, global_batch: int | None = None) -> str:
    """Loss, logit scale and learning rate over steps and samples seen, as an ``<svg>`` element.

    Args:
        curve: at least one record.
        global_batch: ``B``; draws ln(B), the loss of a model that tells nothing apart.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "raylens",
        "font.size": 11,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": MUTED,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "grid.color": RULE,
    }
    with mpl.rc_context(settings):
        figure = Figure(figsize=(9.6, 6.4), layout="constrained")
        figure.patch.set_alpha(0.0)
        panels = figure.subplots(3, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1, 1]})
        _loss_panel(panels[0], curve, global_batch)
        _panel(panels[1], curve.step_K, curve.logit_scale_K, "logit scale", ORANGE)
        _panel(panels[2], curve.step_K, curve.lr_K, "learning rate", GREEN)
        panels[2].set_xlabel("optimiser step")
        panels[2].set_xlim(0, float(curve.step_K[-1]) * 1.06 or 1.0)
        panels[2].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        _samples_axis(panels[0], curve)
        return _themed(figure)


def _loss_panel(axes: "Axes", curve: Curve, global_batch: int | None) -> None:
    _panel(axes, curve.step_K, curve.loss_K, "loss", BLUE)
    if global_batch is not None and global_batch > 1:
        level = math.log(global_batch)
        axes.axhline(level, color=MUTED, linewidth=1.2, linestyle=(0, (5, 4)))
        axes.annotate(
            f"ln({global_batch:,}) = {level:.2f}: nothing learned yet",
            (1.0, level),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 4),
            textcoords="offset points",
            ha="right",
            color=INK,
        )
        axes.set_ylim(top=max(axes.get_ylim()[1], level * 1.12))
    axes.set_ylim(bottom=0)


def _panel(axes: "Axes", step_K: NDArray[np.float64], values_K: NDArray[np.float64], name: str, colour: str) -> None:
    axes.set_ylabel(name)
    axes.grid(visible=True, linewidth=0.8)
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    finite_K = np.isfinite(values_K)
    if not finite_K.any():
        axes.text(0.5, 0.5, "not recorded", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        axes.set_yticks([])
        return
    x, y = _thinned(step_K, values_K)
    axes.plot(x, y, color=colour, linewidth=1.8, marker="o" if len(x) <= 40 else None, markersize=3.5)
    last = int(np.flatnonzero(finite_K)[-1])
    axes.annotate(
        f"{values_K[last]:.3g}",
        (step_K[last], values_K[last]),
        xytext=(6, 0),
        textcoords="offset points",
        va="center",
        fontweight="bold",
        color=colour,
    )


def _thinned(x_K: NDArray[np.float64], y_K: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means of equal runs of points where there are more than a screen can show; a gap stays a gap."""
    if len(x_K) <= MOST_POINTS:
        return x_K, y_K
    edges = np.linspace(0, len(x_K), MOST_POINTS + 1).astype(int)
    counts = np.diff(edges)
    return np.add.reduceat(x_K, edges[:-1]) / counts, np.add.reduceat(y_K, edges[:-1]) / counts


def _samples_axis(axes: "Axes", curve: Curve) -> None:
    """The same ticks above, named by the samples seen at those steps."""
    known_K = np.isfinite(curve.samples_K)
    if not known_K.any():
        return
    steps = np.concatenate([[0.0], curve.step_K[known_K]])
    samples = np.concatenate([[0.0], curve.samples_K[known_K]])
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= steps[-1]]
    above = axes.secondary_xaxis("top")
    above.set_xticks(ticks, [_short(float(np.interp(tick, steps, samples))) for tick in ticks])
    above.set_xlabel("samples seen")
    above.patch.set_visible(False)
    above.spines["top"].set_visible(False)


def _short(number: float) -> str:
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{suffix}"
    return f"{number:.0f}"


def _themed(figure: "Figure") -> str:
    """The figure as an element of the page: its colours become variables, its fonts those of the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=NO_METADATA)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    for pattern, replacement in CLEANING:
        svg = re.sub(pattern, replacement, svg)
    return svg
