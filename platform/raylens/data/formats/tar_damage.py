"""What is wrong with a tar that tarfile does not say: compressed, cut off between members, or several in one file."""

from raylens.errors import DamagedError
from raylens.storage import ObjectInfo, Store

__all__ = ["after_end", "compression", "damaged"]

BLOCK = 512
WINDOW = 2**20
"""Bytes looked at from each end of what comes after the members: more than tars are padded by."""
MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def damaged(store: Store, shard: ObjectInfo, how: str) -> DamagedError:
    """For a tar that cannot be read to its end."""
    return DamagedError(f"shard {shard.path} of {store.describe()} is truncated or damaged: {how}")


def compression(store: Store, shard: ObjectInfo) -> str | None:
    """That the whole tar is compressed, if it is; samples could not be read out of its middle then."""
    start = store.read_range(shard.path, 0, min(shard.size, 8), version=shard.version)
    tool = next((tool for magic, tool in MAGIC.items() if start.startswith(magic)), None)
    return tool and f"it is compressed by {tool}: unpack it and keep the .tar"


def after_end(store: Store, shard: ObjectInfo, end: int) -> tuple[bool, str | None]:
    """Whether the tar ends at ``end``, where tarfile saw no more members, and what is wrong with the bytes from there.

    Only zeros belong there. tarfile takes a header that is cut off or broken for the end, and does not look at what
    follows the first block of zeros.
    """
    left = shard.size - end
    zeros = store.read_range(shard.path, end, min(left, WINDOW), version=shard.version) if left > 0 else b""
    if left < BLOCK or any(zeros[:BLOCK]):
        return False, f"no end after byte {end}"
    if left > WINDOW:
        length = min(left - WINDOW, WINDOW)
        zeros += store.read_range(shard.path, shard.size - length, length, version=shard.version)
    joined = f"data follows its end at byte {end}: write tars that were joined apart again"
    return True, joined if zeros.strip(b"\0") else None
