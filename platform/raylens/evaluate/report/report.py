"""The report of a run: one HTML file that opens anywhere and asks nothing of the network."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from raylens.evaluate.captions import NearestCaptions
from raylens.evaluate.classification import ZeroShotResult
from raylens.report.plane import MOST_CLASSES, confusion_svg
from raylens.report.theme import Curve, curve_svg
from raylens.evaluate.pages import render
from raylens.evaluate.report.rows import class_rows, confusions, examples, notices

if TYPE_CHECKING:
    from raylens.storage import Store

__all__ = ["render_report", "write_report"]


def write_report(
    store: "Store",
    path: str = "report.html",
    *,
    title: str,
    zero_shot: ZeroShotResult,
    curve: Sequence[Mapping[str, Any]],
    nearest: Sequence[NearestCaptions],
    facts: Mapping[str, str],
    global_batch: int | None = None,
) -> None:
    """Render a report and write it into a store; see `render_report`."""
    page = render_report(
        title=title, zero_shot=zero_shot, curve=curve, nearest=nearest, facts=facts, global_batch=global_batch
    )
    store.write(path, page.encode())


def render_report(
    *,
    title: str,
    zero_shot: ZeroShotResult,
    curve: Sequence[Mapping[str, Any]],
    nearest: Sequence[NearestCaptions],
    facts: Mapping[str, str],
    global_batch: int | None = None,
) -> str:
    """One self-contained HTML page; equal input gives equal bytes.

    Args:
        title: the heading.
        zero_shot: the result that the page is about.
        curve: training records with the keys step, loss, lr, logit_scale and samples_seen; may be empty.
        nearest: images to show, in this order (see `pick_examples` and `nearest_captions`); may be empty.
        facts: what a reader needs to repeat the run, such as run, model version, data and date; shown in this order.
        global_batch: pairs contrasted in a step, for the line at ln(B).

    Raises:
        DataError: a training record without a step.
    """
    known = Curve.of(curve)
    drawn = len(zero_shot.classes) <= MOST_CLASSES
    return str(
        render(
            "report.html.j2",
            title=title,
            result=zero_shot,
            notices=notices(zero_shot),
            curve=known if len(known) else None,
            # Trusted markup: numbers drawn by matplotlib, no text of the caller's in it.
            curve_figure=Markup(curve_svg(known, global_batch)) if len(known) else None,  # noqa: S704
            global_batch=global_batch,
            examples=examples(zero_shot, nearest),
            confusion_figure=confusion_svg(zero_shot) if drawn else None,
            confusions=confusions(zero_shot),
            class_rows=class_rows(zero_shot),
            facts=facts,
        )
    )
