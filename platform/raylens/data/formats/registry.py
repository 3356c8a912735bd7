"""All formats, in the order in which an unnamed one is recognised. A new format is a file and a line here."""

from collections.abc import Mapping

from raylens.data.formats.base import ShardFormat
from raylens.data.formats.folder import FOLDER
from raylens.data.formats.parquet import PARQUET
from raylens.data.formats.table import TABLE
from raylens.data.formats.tar import TAR

__all__ = ["FORMATS"]

FORMATS: Mapping[str, ShardFormat] = {kind.name: kind for kind in (TAR, PARQUET, TABLE, FOLDER)}
