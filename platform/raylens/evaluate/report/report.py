"""The report of an evaluation: one HTML file that opens anywhere and asks nothing of the network."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raylens.errors import DataError
from raylens.evaluate.captions import NearestCaptions
from raylens.evaluate.classification import ZeroShotResult
from raylens.evaluate.report.rows import class_rows, confusions, examples, notices
from raylens.report import MOST_CLASSES, Panel, confusion_matrix, count_text, records_panel, render_page

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
    """Return one self-contained HTML page; equal input gives equal bytes.

    Args:
        title: the heading.
        zero_shot: the result that the page is about.
        curve: training records with the keys step, loss, lr, logit_scale and samples_seen; all but step may be
            missing, and there may be none.
        nearest: images to show, in this order (see `pick_examples` and `nearest_captions`); may be empty.
        facts: what a reader needs to repeat the run, such as run, model version, data and date; shown in this order.
        global_batch: pairs contrasted in a step, for the line at ln(B).

    Raises:
        DataError: a training record without a step.
    """
    return render_page(
        "report.html.j2",
        "raylens.evaluate.report",
        title=title,
        result=zero_shot,
        notices=notices(zero_shot),
        curves=list(_curves(_by_step(curve), global_batch)) if curve else [],
        examples=examples(zero_shot, nearest),
        matrix=_matrix(zero_shot) if len(zero_shot.classes) <= MOST_CLASSES else None,
        confusions=confusions(zero_shot),
        class_rows=class_rows(zero_shot),
        facts=facts,
    )


def _by_step(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Order records by their steps; of equal steps the last stays, for a resumed run repeats those since a checkpoint.

    Raises:
        DataError: a record has no step.
    """
    by_step: dict[float, Mapping[str, Any]] = {}
    for index, record in enumerate(records):
        if record.get("step") is None:
            raise DataError(f"record {index} of the training curve has no step: {dict(record)!r}")
        by_step[float(record["step"])] = record
    return [by_step[step] for step in sorted(by_step)]


def _curves(records: Sequence[Mapping[str, Any]], global_batch: int | None) -> Iterator[Panel]:
    level = math.log(global_batch) if global_batch is not None and global_batch > 1 else None
    note = "" if level is None else f"; the dashed line is ln({global_batch:,}) = {level:.2f}: nothing learned yet"
    yield records_panel(records, "loss", {"loss": ""}, level=level, note=note, samples=True)
    yield records_panel(records, "logit scale (the inverse of the temperature)", {"logit_scale": ""})
    yield records_panel(records, "learning rate", {"lr": ""})


def _matrix(result: ZeroShotResult) -> Panel:
    says = (
        f"Confusion matrix of {count_text(len(result.classes), 'classes')}: {result.correct:,} of "
        f"{count_text(result.n, 'images')} are on the diagonal. Rows are true classes, columns predictions. The depth "
        "of a colour is the square root of a cell's share of its row: blue on the diagonal is right, orange is wrong. "
        "Point at a cell for its count; the table of classes has the same numbers."
    )
    return Panel("", confusion_matrix(result.confusion_CC, result.classes), says)
