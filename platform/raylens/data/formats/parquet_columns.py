"""The columns of a Parquet file that hold images and captions, in the types that tools write."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from raylens.data.formats.base import Columns, captions_of
from raylens.data.formats.columns import CAPTION_NAMES, find_column

__all__ = ["PairColumns", "is_text"]

IMAGE_NAMES = ("image", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content", "img")


@dataclass(frozen=True)
class PairColumns:
    """The two columns that make a sample."""

    image: str
    caption: str
    nested: bool
    """Whether the image is the field ``bytes`` of a struct."""

    @classmethod
    def of(cls, schema: pa.Schema, columns: Columns, where: str) -> Self:
        """Find them.

        Raises:
            ManifestError: the file, called ``where``, has no such columns; lists those that it has.
        """
        # A name that comes twice says nothing about which column is meant.
        fields = {name: schema.field(name).type for name in schema.names if schema.names.count(name) == 1}
        images = {name: name in fields and _holds_images(fields[name]) for name in schema.names}
        captions = {name: name in fields and _holds_captions(fields[name]) for name in schema.names}
        image = find_column("image", columns.image, IMAGE_NAMES, images, where, fields)
        caption = find_column("caption", columns.caption, CAPTION_NAMES, captions, where, fields)
        return cls(image, caption, pa.types.is_struct(fields[image]))

    @property
    def leaves(self) -> list[str]:
        """What to read of the file: of a struct, only the bytes."""
        return [f"{self.image}.bytes" if self.nested else self.image, self.caption]

    def take(self, batch: pa.RecordBatch, rows: Sequence[int]) -> Iterator[tuple[bytes | None, tuple[str, ...] | None]]:
        """Image and captions of rows of a batch."""
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
    """Whether a column of this type holds texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _captions(value: pa.Scalar) -> tuple[str, ...] | None:
    if not value.is_valid:
        return None
    if isinstance(value, pa.DictionaryScalar):
        value = value.value
    texts = value.values if isinstance(value, pa.ListScalar) else [value]
    # By the bytes, because nothing has checked that they are UTF-8.
    return captions_of([bytes(text.as_buffer()).decode("utf-8", errors="replace") for text in texts if text.is_valid])
