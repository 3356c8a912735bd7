"""Tables of image paths and captions: CSV and TSV with a header line, and JSON lines."""

import io
import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, BinaryIO

from raylens.data.formats.base import Columns, Pair, RawSample, SampleLocation, captions_of
from raylens.data.formats.columns import CAPTION_NAMES, find_column
from raylens.data.formats.delimited import DelimitedText
from raylens.data.formats.files import ImageRow, has_parent_part, is_elsewhere, read_files, walk_files
from raylens.errors import ManifestError
from raylens.storage import ObjectInfo, Store

__all__ = ["TABLE", "TableFormat"]

IMAGE_NAMES = (
    "image", "filepath", "file_path", "file_name", "filename", "image_path", "path", "img", "file", "image_file",
)  # fmt: skip
URL_NAMES = ("url", "urls", "image_url", "img_url", "link")
DELIMITERS = {"csv": ",", "tsv": "\t"}

Row = tuple[int, str | None, Any]
"""Line number, image path and value of the caption column; without a path if the line is malformed."""


def table_rows(stream: BinaryIO, suffix: str, columns: Columns, folder: str, where: str) -> Iterator[ImageRow]:
    """Yield images in the order of the table; consecutive rows with the same image are one.

    Args:
        stream: the table in UTF-8; it is closed after the last row.
        suffix: ``csv``, ``tsv`` or ``jsonl``; `DelimitedText` defines the quoting of the first two.
        columns: the columns that the configuration names.
        folder: the folder of the table, to which paths are relative.
        where: the table, for messages.

    Raises:
        ManifestError: the header line is missing or lacks the columns.
    """
    with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="") as text:
        rows = _objects(text, columns, where) if suffix == "jsonl" else _lines(text, suffix, columns, where)
        placed = ((line, image and _path(folder, _utf8(image)), captions) for line, image, captions in rows)
        for (_, path), group in groupby(placed, key=lambda row: (row[0] if row[1] is None else 0, row[1])):
            members = list(group)
            if path is None:
                yield ImageRow(f"line {members[0][0]}", reason="malformed row")
            else:
                yield ImageRow(path, _together([captions_of(value) for _, _, value in members]), _refused(path))


def _path(folder: str, image: str) -> str:
    if is_elsewhere(image):
        return image
    parts = [part for part in image.split("/") if part not in ("", ".")]
    return "/".join([folder, *parts] if folder else parts)


def _together(captions: list[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    present = [several for several in captions if several is not None]
    return tuple(_utf8(caption) for several in present for caption in several) if present else None


def _refused(path: str) -> str | None:
    if path.lower().startswith(("http://", "https://")):
        return "image is a web address: download with img2dataset first"
    return "image path leaves its folder by '..'" if has_parent_part(path) else None


def _utf8(text: str) -> str:
    """Replace lone surrogates, which JSON may escape but UTF-8 cannot encode."""
    return text.encode("utf-8", errors="replace").decode()


def _lines(text: io.TextIOWrapper, suffix: str, columns: Columns, where: str) -> Iterator[Row]:
    table = DelimitedText(iter(text), DELIMITERS[suffix])
    header = table.header()
    if header is None:
        raise ManifestError(
            f"{where}: the header line has a quote that is not closed, or text after a closing quote: correct it"
        )
    if not header:
        raise ManifestError(f"{where}: the header line is missing: write the column names into line 1")
    image, caption = (header.index(name) for name in _find_columns(dict.fromkeys(header, True), columns, where))
    for line, row in table.rows(len(header), image):
        yield line, (row[image].strip() or None) if row else None, row[caption] if row else None


def _objects(text: io.TextIOWrapper, columns: Columns, where: str) -> Iterator[Row]:
    names: tuple[str, str] | None = None
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            yield number, None, None
            continue
        names = names or _find_columns(dict.fromkeys(row, True), columns, where)
        image = row.get(names[0])
        path = image.strip() if isinstance(image, str) else ""
        yield number, path or None, row.get(names[1])


def _find_columns(header: dict[str, bool], columns: Columns, where: str) -> tuple[str, str]:
    try:
        image = find_column("image", columns.image, IMAGE_NAMES, header, where)
    except ManifestError as error:
        urls = [name for name in header if name.strip().lower() in URL_NAMES]
        if columns.image is not None or not urls:
            raise
        raise ManifestError(f"{error}; download the images of column {urls[0]!r} with img2dataset first") from None
    return image, find_column("caption", columns.caption, CAPTION_NAMES, header, where)


SUFFIXES = (".csv", ".tsv", ".jsonl")


class TableFormat:
    """Each row names an image by a path relative to the table's folder, an absolute path, or a URI.

    Consecutive rows with the same image are one sample with several captions.
    """

    name = "table"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """Implement `ShardFormat.select`: beside tars and Parquet files, tables are metadata, not shards."""
        if any(info.path.endswith((".tar", ".parquet")) for info in objects):
            return []
        return [info for info in objects if info.path.endswith(SUFFIXES)]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:
        """Implement `ShardFormat.walk`: read each image whole."""
        where = f"table {shard.path} of {store.describe()}"
        with io.BufferedReader(store.open_file(shard.path, shard.size, shard.version)) as stream:
            rows = table_rows(stream, shard.path.rpartition(".")[2], columns, shard.path.rpartition("/")[0], where)
            yield from walk_files(store, rows)

    def read(
        self,
        store: Store,
        shard: ObjectInfo,  # noqa: ARG002
        columns: Columns,  # noqa: ARG002
        locations: Sequence[SampleLocation],
        records: Sequence[bytes],
    ) -> Iterator[Pair]:
        """Implement `ShardFormat.read`: read the image objects; the table is not needed."""
        return read_files(store, locations, records)


TABLE = TableFormat()
