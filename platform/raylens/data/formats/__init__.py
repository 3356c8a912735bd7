"""Formats of data sets: which objects are shards, and how samples are read from them."""

from raylens.data.formats.base import Columns, Kind, Pair, Place, RawSample, ShardFormat
from raylens.data.formats.registry import FORMATS

__all__ = ["FORMATS", "Columns", "Kind", "Pair", "Place", "RawSample", "ShardFormat"]
