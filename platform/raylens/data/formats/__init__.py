"""Formats of data sets: which objects are shards, and how samples are read from them."""

from collections.abc import Mapping

from raylens.data.formats.base import Columns, Kind, Pair, RawSample, SampleLocation, ShardFormat
from raylens.data.formats.folder import FOLDER
from raylens.data.formats.parquet import PARQUET
from raylens.data.formats.table import TABLE
from raylens.data.formats.tar import TAR

__all__ = [
    "FOLDER",
    "FORMATS",
    "PARQUET",
    "TABLE",
    "TAR",
    "Columns",
    "Kind",
    "Pair",
    "RawSample",
    "SampleLocation",
    "ShardFormat",
]

FORMATS: Mapping[str, ShardFormat] = {kind.name: kind for kind in (TAR, PARQUET, TABLE, FOLDER)}
"""All formats, in the order in which ``format: auto`` tries them; a new format is a file and an entry here."""
