"""Tables of image paths and captions: CSV, TSV and JSON lines."""

import io
from collections.abc import Iterator, Sequence

from raylens.data.formats.base import Columns, Pair, Place, RawSample
from raylens.data.formats.files import read_files, walk_files
from raylens.data.formats.table_rows import table_rows
from raylens.storage import ObjectInfo, Store

__all__ = ["TABLE", "TableFormat"]

SUFFIXES = (".csv", ".tsv", ".jsonl")


class TableFormat:
    """Each row names an image: relative to the table's folder, by an absolute path, or by a URI.

    Rows that follow each other with the same image are one sample with several captions.
    """

    name = "table"

    def select(self, objects: Sequence[ObjectInfo]) -> list[ObjectInfo]:
        """See `ShardFormat.select`; beside tars and Parquet files, tables are metadata."""
        if any(info.path.endswith((".tar", ".parquet")) for info in objects):
            return []
        return [info for info in objects if info.path.endswith(SUFFIXES)]

    def walk(self, store: Store, shard: ObjectInfo, columns: Columns) -> Iterator[RawSample]:
        """See `ShardFormat.walk`; each image is read whole."""
        where = f"table {shard.path} of {store.describe()}"
        with io.BufferedReader(store.open_file(shard.path, shard.size, shard.version)) as stream:
            rows = table_rows(stream, shard.path.rpartition(".")[2], columns, shard.path.rpartition("/")[0], where)
            yield from walk_files(store, rows)

    def read(
        self,
        store: Store,
        shard: ObjectInfo,  # noqa: ARG002
        columns: Columns,  # noqa: ARG002
        places: Sequence[Place],
        records: Sequence[bytes],
    ) -> Iterator[Pair]:
        """See `ShardFormat.read`; the table itself is not needed."""
        return read_files(store, places, records)


TABLE = TableFormat()
