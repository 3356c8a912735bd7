"""The numbers of a data set as a page of plain text: what ``raylens data stats`` prints."""

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest

from rich.cells import cell_len, set_cell_size

from raylens.data.stats import ASPECTS, QUANTILE_ERROR, SMALL_EDGE, Duplicates, Stats, Summary
from raylens.report import bytes_text, count_text, percent_text, printable, short_text

__all__ = ["WIDTH", "stats_page"]

WIDTH = 100
"""Most columns of the page."""

Write = Callable[[float], str]

BLOCK = 48
SHARE = 7
LABEL, CELL = 18, 8
MOST_REASONS = 12
EIGHTHS = " ▏▎▍▌▋▊▉"
HEADER = ("min", "1%", "5%", "25%", "median", "75%", "95%", "99%", "max", "mean")
NOTE = f"Quantiles are within {percent_text(QUANTILE_ERROR)}; everything else is exact."


def stats_page(stats: Stats, title: str) -> str:
    """Return lines of at most `WIDTH` columns, without control characters but for the ends of lines."""
    title = _cut(title)
    lines = [title, "─" * cell_len(title), *_overview(stats)]
    if stats.samples:
        lines += ["", *_quantiles(stats), "", *_blocks(stats)]
    return "\n".join(_cut(line.rstrip()) for line in lines) + "\n"


def _overview(stats: Stats) -> Iterator[str]:
    yield f"{'samples':<{LABEL}}{stats.samples:,} in {count_text(stats.shards, 'shards')}{_spread(stats)}"
    everything = stats.samples + stats.rejected
    yield f"{'left out':<{LABEL}}{stats.rejected:,}{_of(stats.rejected, everything)}"
    width = len(f"{stats.rejected:,}")
    for reason, count in list(stats.reasons.items())[:MOST_REASONS]:
        yield f"{'':<{LABEL}}{count:>{width},}  {reason}"
    if len(stats.reasons) > MOST_REASONS:
        yield f"{'':<{LABEL}}{'':>{width}}  and {len(stats.reasons) - MOST_REASONS:,} other reasons"
    if stats.image_bytes is not None and stats.small_share is not None:
        yield f"{'image files':<{LABEL}}{bytes_text(stats.image_bytes.total)}"
        small = round(stats.small_share * stats.samples)
        yield f"{'small images':<{LABEL}}{small:,}{_of(small, stats.samples)} shorter edge under {SMALL_EDGE} pixels"
    for name, duplicates in (("images", stats.duplicate_images), ("captions", stats.duplicate_captions)):
        if duplicates is not None:
            yield f"{f'repeated {name}':<{LABEL}}{_repeated(duplicates, stats.samples)}"


def _spread(stats: Stats) -> str:
    if stats.per_shard is None:
        return ""
    least, median, most = stats.per_shard
    return f", {least:,} to {most:,} a shard (median {median:,.0f})" if least < most else f", {least:,} a shard"


def _repeated(duplicates: Duplicates, samples: int) -> str:
    most = f", one {duplicates.most_copies:,} times" if duplicates.most_copies > 1 else ""
    if duplicates.fraction == 1.0:
        return f"{percent_text(duplicates.share)}{most}"
    part = f"{duplicates.samples:,} of {samples:,} samples"
    # Two standard errors: true nineteen times out of twenty.
    share, error = 100 * duplicates.share, 200 * duplicates.error
    return f"about {share:.2f} ± {error:.2f}%, estimated from {part}{most}"


def _quantiles(stats: Stats) -> Iterator[str]:
    yield f"{'':<{LABEL}}" + "".join(f"{name:>{CELL}}" for name in HEADER)
    rows: tuple[tuple[str, Summary | None, Write], ...] = (
        ("width", stats.width, _number),
        ("height", stats.height, _number),
        ("pixels", stats.pixels, _number),
        ("width : height", stats.aspect, _ratio),
        ("image bytes", stats.image_bytes, bytes_text),
        ("caption bytes", stats.caption_bytes, _number),
        ("captions a sample", stats.captions, _number),
    )
    for name, summary, write in rows:
        if summary is not None:
            values = (summary.least, *summary.quantiles.values(), summary.most)
            # A mean of small integers says nothing without its fraction.
            mean = f"{summary.mean:.2f}" if summary.mean < 100 and write is _number else write(summary.mean)
            yield f"{name:<{LABEL}}" + "".join(f"{cell:>{CELL}}" for cell in (*map(write, values), mean))
    yield f"{'':<{LABEL}}{NOTE:>{CELL * len(HEADER)}}"


def _blocks(stats: Stats) -> Iterator[str]:
    """Yield histograms, two beside each other."""
    left = [
        _block("width", stats.width, _number),
        _block("image bytes", stats.image_bytes, bytes_text),
        _block("captions a sample", stats.captions, _number),
        _sizes(stats),
    ]
    right = [
        _block("height", stats.height, _number),
        _block("caption bytes", stats.caption_bytes, _number),
        _block("pixels", stats.pixels, _number),
        _aspects(stats.aspect),
    ]
    for number, (block, neighbour) in enumerate(zip(left, right, strict=True)):
        if number:
            yield ""
        for line, beside in zip_longest(block, neighbour, fillvalue=""):
            yield f"{line}{' ' * (WIDTH - BLOCK - cell_len(line))}{beside}"


def _block(name: str, summary: Summary | None, write: Write) -> list[str]:
    bars = summary.histogram if summary is not None else ()
    return [name, *_bars([_range(bar.low, bar.high, write) for bar in bars], [bar.count for bar in bars])]


def _aspects(summary: Summary | None) -> list[str]:
    counts = [bar.count for bar in summary.histogram] if summary is not None else []
    shown = [place for place, count in enumerate(counts) if count]
    span = slice(shown[0], shown[-1] + 1) if shown else slice(0)
    return ["width : height, to the nearest", *_bars(list(ASPECTS)[span], counts[span])]


def _sizes(stats: Stats) -> list[str]:
    name = "most frequent sizes"
    if stats.sizes_short:
        name += f" (counts at most {stats.sizes_short:,} short)"
    labels = [f"{size.width:,} x {size.height:,}" for size in stats.sizes]
    rows = _bars(labels, [size.count for size in stats.sizes], of=stats.samples)
    return [_cut(name, BLOCK), *(rows or ["  none stands out"])]


def _bars(labels: Sequence[str], counts: Sequence[int], of: int | None = None) -> list[str]:
    """Return a line for each bar, the longest as long as there is space; shares of ``of`` or of all counts."""
    width = max((len(label) for label in labels), default=0)
    longest, whole = max(counts, default=0), sum(counts) if of is None else of
    space = BLOCK - SHARE - width - 4
    bars = [_bar(count / longest, space) if count else "" for count in counts]
    shares = [percent_text(count / whole) if count else "-" for count in counts]
    return [
        f"  {label:>{width}} {bar:<{space}} {share:>{SHARE}}"
        for label, bar, share in zip(labels, bars, shares, strict=True)
    ]


def _bar(share: float, space: int) -> str:
    """Return a bar, of which what is there at all is seen."""
    eighths = max(round(share * space * 8), 1) if share else 0
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _range(low: float, high: float, write: Write) -> str:
    first, last = write(low), write(high)
    if first == last:
        return first
    number, _, unit = first.partition(" ")
    return f"{number if unit == last.partition(' ')[2] else first}–{last}"


def _of(count: int, whole: int) -> str:
    return f" ({percent_text(count / whole)})" if count else ""


def _number(value: float) -> str:
    return f"{round(value):,}" if value < 9_999.5 else short_text(value, 3)


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 999.5 else f"{value:,.0f}"


def _cut(text: str, width: int = WIDTH) -> str:
    text = printable(text)
    return text if cell_len(text) <= width else set_cell_size(text, width - 1).rstrip() + "…"
