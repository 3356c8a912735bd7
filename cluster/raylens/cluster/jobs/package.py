"""Zip files that travel to a cluster, named by their content."""

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from raylens.cluster.private_file import replace_bytes

__all__ = ["Package", "cached", "file_package", "keep"]

DATE = (2020, 2, 2, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """Bytes, and the name under which a cluster keeps them."""

    name: str
    digest: str
    """SHA-256 of the bytes."""
    data: bytes = field(repr=False)

    @property
    def uri(self) -> str:
        """As Ray's runtime environments name it."""
        return f"gcs://{self.name}"


def file_package(files: Mapping[str, bytes]) -> Package:
    """Files by name; the same files make the same package."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, DATE), files[name])
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    return Package(f"raylens-files-{digest[:16]}.zip", digest, sink.getvalue())


def keep(package: Package) -> None:
    """Hold on to it on this machine: a cluster forgets a package when the last job that needs it has ended."""
    file = _folder() / package.name
    if not file.exists():
        replace_bytes(file, package.data)


def cached(name: str) -> Package | None:
    """One that was kept."""
    try:
        data = (_folder() / name).read_bytes()
    except FileNotFoundError:
        return None
    return Package(name, hashlib.sha256(data).hexdigest(), data)


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "raylens" / "packages"
