"""Who holds a port, as far as Linux tells."""

import contextlib
from pathlib import Path

__all__ = ["holder_of"]

PROC = Path("/proc")
LISTENS = "0A"


def holder_of(port: int) -> str | None:
    """``process 4711 (haproxy)``, or None where that cannot be seen: another system, or another user's process."""
    inodes = {f"socket:[{inode}]" for table in ("tcp", "tcp6") for inode in _listening(PROC / "net" / table, port)}
    if not inodes:
        return None
    for process in PROC.iterdir():
        if not process.name.isdecimal():
            continue
        # Processes end while they are looked at, and those of others keep their files to themselves.
        with contextlib.suppress(OSError):
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                return f"process {process.name} ({(process / 'comm').read_text().strip()})"
    return None


def _listening(table: Path, port: int) -> list[str]:
    try:
        rows = [line.split() for line in table.read_text().splitlines()[1:]]
    except OSError:
        return []
    return [row[9] for row in rows if row[3] == LISTENS and int(row[1].rpartition(":")[2], 16) == port]
