"""Zip files that are uploaded to a cluster, named by their content."""

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
    """A zip file's bytes, and the name under which a cluster keeps them."""

    name: str
    digest: str
    """The SHA-256 digest of the bytes."""
    data: bytes = field(repr=False)

    @property
    def uri(self) -> str:
        """The package's URI in Ray's runtime environments."""
        return f"gcs://{self.name}"


def file_package(files: Mapping[str, bytes]) -> Package:
    """Pack files, given by name; the same files make the same package."""
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, DATE), files[name])
    digest = hashlib.sha256(sink.getvalue()).hexdigest()
    return Package(f"raylens-files-{digest[:16]}.zip", digest, sink.getvalue())


def keep(package: Package) -> None:
    """Keep a package on this machine: a cluster deletes one when the last job that needs it has ended."""
    file = _folder() / package.name
    if not file.exists():
        replace_bytes(file, package.data)


def cached(name: str) -> Package | None:
    """Return a package that was kept on this machine; None if there is none."""
    try:
        data = (_folder() / name).read_bytes()
    except FileNotFoundError:
        return None
    return Package(name, hashlib.sha256(data).hexdigest(), data)


def _folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "raylens" / "packages"
