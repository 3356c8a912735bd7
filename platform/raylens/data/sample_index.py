"""The location of each usable sample: fixed-width records in one file, addressed by sample number.

Tasks map the file into memory: it is not parsed, and all tasks of a machine share its pages. A machine downloads it
from an object store once.
"""

import fcntl
import mmap
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raylens.data.formats.base import Kind, SampleLocation
from raylens.storage import Store

__all__ = ["RECORD", "index_records", "local_copy", "location_of", "map_bytes", "map_records"]

RECORD = np.dtype(
    [
        ("offset", "<i8"),
        ("length", "<u4"),
        ("caption_delta", "<i4"),
        ("caption_length", "<u4"),
        ("kind", "u1"),
        ("check", "<u8"),  # the first 8 bytes of the image's SHA-256
    ]
)
CACHE = "RAYLENS_CACHE"


def index_records(rows: pa.Table, texts_before: int) -> tuple[NDArray[np.void], bytes]:
    """Return the records of the usable rows of a part of a manifest, and the bytes they add to the texts.

    Args:
        rows: usable rows, in order.
        texts_before: bytes that the texts hold already.
    """
    records = np.zeros(rows.num_rows, dtype=RECORD)
    records["offset"] = rows["offset"].to_numpy()
    records["length"] = rows["image_length"].to_numpy()
    records["caption_delta"] = rows["caption_delta"].to_numpy()
    records["caption_length"] = rows["caption_extent"].to_numpy()
    records["kind"] = rows["kind"].to_numpy()
    records["check"] = _first_words(rows["image_sha256"].combine_chunks())
    if rows["record"].null_count == rows.num_rows:
        return records, b""
    texts = [record or b"" for record in rows["record"].to_pylist()]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    kept = records["kind"] == Kind.FILE
    starts = texts_before + np.concatenate([[0], np.cumsum(lengths)])[:-1]
    records["offset"] = np.where(kept, starts, records["offset"])
    records["caption_length"] = np.where(kept, lengths, records["caption_length"])
    return records, b"".join(texts)


def _first_words(digests: pa.Array) -> NDArray[np.uint64]:
    words = np.frombuffer(digests.buffers()[1], dtype="<u8") if len(digests) else np.zeros(0, dtype="<u8")
    return words[4 * digests.offset : 4 * (digests.offset + len(digests)) : 4]


def location_of(record: np.void) -> SampleLocation:
    """Convert a record to the location that formats read."""
    return SampleLocation(
        int(record["offset"]),
        int(record["length"]),
        int(record["caption_delta"]),
        int(record["caption_length"]),
        Kind(int(record["kind"])),
    )


def map_records(path: Path) -> NDArray[np.void]:
    """Map the records of a file into memory, ``[N]``."""
    return np.memmap(path, dtype=RECORD, mode="r")


def map_bytes(path: Path) -> "mmap.mmap | bytes":
    """Map the bytes of a file into memory."""
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""


def local_copy(home: Store, names: Iterable[str], digest: str) -> dict[str, Path]:
    """Return files of a manifest on this machine: those of a local folder, else copies in a cache.

    The cache is ``$RAYLENS_CACHE``, or a folder of this user in the system's temporary folder. Copies are named by the
    manifest's digest and never removed.
    """
    if home.uri.startswith("/"):
        return {name: Path(home.uri) / name for name in names}
    folder = Path(os.environ.get(CACHE) or Path(tempfile.gettempdir()) / f"raylens-{os.getuid()}") / digest
    folder.mkdir(parents=True, exist_ok=True)
    copies = {}
    for name in names:
        copies[name] = folder / name
        with (folder / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # one task of the machine downloads, the others wait for it
            if not copies[name].exists():
                home.download(name, copies[name])
    return copies
