"""Parquet files with the bytes of images in one column and captions in another."""

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raylens.data.formats.base import Columns, Kind, Pair, RawSample, SampleLocation, captions_of
from raylens.data.formats.columns import CAPTION_NAMES, find_column
from raylens.errors import DamagedError, ManifestError
from raylens.storage import ObjectInfo, Store

__all__ = ["PARQUET", "ParquetFormat"]

IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content", "img")


@dataclass(frozen=True)
class PairColumns:
    """The image and caption columns of a Parquet file."""

    image: str
    caption: str
    nested: bool
    """Whether images are in the field ``bytes`` of a struct."""

    @classmethod
    def of(cls, schema: pa.Schema, columns: Columns, where: str) -> Self:
        """Find the columns in a schema.

        Raises:
            ManifestError: the file ``where`` lacks such columns; the message lists its columns.
        """
        # A name that occurs twice is ambiguous.
        fields = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
        images = {name: name in fields and _holds_images(fields[name]) for name in schema.names}
        captions = {name: name in fields and _holds_captions(fields[name]) for name in schema.names}
        image = find_column("image", columns.image, IMAGE_NAMES, images, where, fields)
        caption = find_column("caption", columns.caption, CAPTION_NAMES, captions, where, fields)
        return cls(image, caption, pa.types.is_struct(fields[image]))

    @property
    def leaves(self) -> list[str]:
        """The leaf columns to read; of a struct, only the bytes."""
        return [f"{self.image}.bytes" if self.nested else self.image, self.caption]

    def take(self, batch: pa.RecordBatch, rows: Sequence[int]) -> Iterator[tuple[bytes | None, tuple[str, ...] | None]]:
        """Yield image and captions of rows of a batch."""
        images, captions = batch.column(self.image), batch.column(self.caption)
        if self.nested:
            images = pc.struct_field(images, "bytes")
        for row in rows:
            yield images[row].as_py(), _captions(captions[row])


def _holds_images(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_images(field.type) for field in kind)
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _holds_captions(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return is_text(kind.value_type)
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _captions(value: pa.Scalar) -> tuple[str, ...] | None:
    if not value.is_valid:
        return None
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    texts = value.values if isinstance(value, pa.ListScalar) else [value]
    # Decoded from bytes, because they may not be valid UTF-8.
    return captions_of([bytes(text.as_buffer()).decode("utf-8", errors="replace") for text in texts if text.is_valid])


KEY_NAMES = ("key", "__key__", "id", "uid")
BATCH = 64
"""Rows decoded at a time, so that memory does not grow with row groups, which may exceed 2 GiB."""


class ParquetFormat:
    """Each row is a sample: images are binary or Hugging Face's ``{bytes, path}``, captions a text or a list."""

    name = "parquet"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """Implement `ShardFormat.select`: beside tars, Parquet files are metadata of img2dataset, not shards."""
        if any(info.path.endswith(".tar") for info in objects):
            return []
        return [info for info in objects if info.path.endswith(".parquet")]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:
        """Implement `ShardFormat.walk`: read row groups in order, and only the columns needed."""
        with _opened(store, shard) as file:
            pair = PairColumns.of(file.schema_arrow, columns, _name(store, shard))
            key = _key_column(file)
            for group in range(file.num_row_groups):
                for start, batch in _batches(file, group, [*pair.leaves, *([key] if key else [])]):
                    keys = batch.column(key) if key else None
                    for row, (image, captions) in enumerate(pair.take(batch, range(batch.num_rows))):
                        yield RawSample(
                            key=_text(keys[row]) if keys is not None else f"{group:06d}-{start + row:06d}",
                            image=image or None,
                            captions=captions,
                            location=SampleLocation(group << 32 | start + row, len(image or b""), kind=Kind.ROW),
                        )

    def read(
        self,
        store: Store,
        shard: ObjectInfo,
        columns: Columns,
        locations: Sequence[SampleLocation],
        records: Sequence[bytes],  # noqa: ARG002
    ) -> Iterator[Pair]:
        """Implement `ShardFormat.read`: read each needed row group once."""
        name = _name(store, shard)
        with _opened(store, shard) as file:
            pair = PairColumns.of(file.schema_arrow, columns, name)
            for group, members in groupby(locations, key=lambda location: location.offset >> 32):
                wanted = [(location.offset & 0xFFFFFFFF, location.length) for location in members]
                yield from _read_group(file, group, wanted, pair, name)


def _key_column(file: pq.ParquetFile) -> str | None:
    """Return the first column with a usual name for keys whose values are unique."""
    for name in KEY_NAMES:
        number = file.schema_arrow.get_field_index(name)
        kind = file.schema_arrow.field(number).type if number >= 0 else pa.null()
        if (is_text(kind) or pa.types.is_integer(kind)) and _is_unique(file, name, kind):
            return name
    return None


def _is_unique(file: pq.ParquetFile, name: str, kind: pa.DataType) -> bool:
    chunks: list[pa.Array] = []
    for group in range(file.num_row_groups):
        try:
            chunks += file.read_row_group(group, columns=[name], use_threads=False).column(0).chunks
        except (pa.ArrowException, OSError):
            break  # `walk` reports the damage, after the rows before it
    values = pa.chunked_array(chunks, kind)
    return bool(values.null_count == 0 and pc.count_distinct(values).as_py() == len(values))


def _text(key: pa.Scalar) -> str:
    if pa.types.is_integer(key.type):
        return str(key.as_py())
    return bytes(key.as_buffer()).decode("utf-8", errors="replace")


def _batches(file: pq.ParquetFile, group: int, leaves: list[str]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yield batches of a row group, each with the number of its first row."""
    start = 0
    for batch in file.iter_batches(BATCH, row_groups=[group], columns=leaves, use_threads=False):
        yield start, batch
        start += batch.num_rows


def _read_group(
    file: pq.ParquetFile, group: int, wanted: list[tuple[int, int]], pair: PairColumns, name: str
) -> Iterator[Pair]:
    """Yield rows of a group, requested by their numbers and the lengths of their images."""
    if group >= file.num_row_groups or wanted[-1][0] >= file.metadata.row_group(group).num_rows:
        raise ManifestError(f"{name} has no row {wanted[-1][0]} in row group {group}: {_CHANGED}")
    done = 0
    for start, batch in _batches(file, group, pair.leaves):
        here = [item for item in wanted[done : done + batch.num_rows] if item[0] < start + batch.num_rows]
        samples = pair.take(batch, [row - start for row, _ in here])
        for (row, length), (image, captions) in zip(here, samples, strict=True):
            if image is None or len(image) != length:
                actual = "no image" if image is None else f"an image of {len(image)} bytes"
                raise ManifestError(
                    f"{name} has {actual} in row {row} of row group {group}, not one of {length}: {_CHANGED}"
                )
            yield Pair(image, captions or ("",))
        done += len(here)
        if done == len(wanted):
            return


_CHANGED = "it has changed since it was indexed; restore the old file, or start a new run with another name"


def _name(store: Store, shard: ObjectInfo) -> str:
    return f"shard {shard.path} of {store.describe()}"


@contextmanager
def _opened(store: Store, shard: ObjectInfo) -> Iterator[pq.ParquetFile]:
    """Open a shard; damage is raised as `DamagedError`."""
    try:
        with store.open_file(shard.path, shard.size, shard.version) as stream:
            yield pq.ParquetFile(stream, metadata=_footer(store, shard), page_checksum_verification=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedError(f"{_name(store, shard)} is truncated or damaged: {first}") from None


@functools.lru_cache(maxsize=32)
def _footer(store: Store, shard: ObjectInfo) -> Any:
    """Cache the parsed footer, since parsing takes longer than reading a row group."""
    with store.open_file(shard.path, shard.size, shard.version) as stream:
        return pq.read_metadata(stream)


PARQUET = ParquetFormat()
