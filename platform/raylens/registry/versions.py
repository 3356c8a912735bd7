"""The registry: bundles under a name, numbered, with aliases that move atomically.

<registry>/<name>/bundles/<digest>/...     the bundle's files, never overwritten
<registry>/<name>/versions/000001.json     digest and lineage; written once, which is what makes a version exist
<registry>/<name>/aliases/prod.json        the version an alias points to; moved by compare-and-set
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from raylens.config import explain
from raylens.errors import AlreadyExistsError, BundleError, ConfigError, ConflictError, NotFoundError
from raylens.names import MODEL_NAME
from raylens.registry.lineage import Lineage
from raylens.storage import Store, open_store

if TYPE_CHECKING:  # importing torch takes seconds, and listing versions does not need it
    from raylens.registry.bundle import Bundle
    from raylens.registry.encoder import Encoder

__all__ = ["Registry", "Version"]

LATEST = "latest"


@dataclass(frozen=True)
class Version:
    """One version of a model: a bundle with a number."""

    name: str
    number: int
    digest: str
    created: str
    """The time of publication, in ISO 8601 and UTC."""
    lineage: Lineage

    def __str__(self) -> str:
        return f"{self.name}@{self.number}"


class _Record(BaseModel):
    """The content of a file such as ``versions/000001.json``."""

    digest: str
    created: str
    lineage: Lineage


class Registry:
    """The registry of all models under one URI."""

    def __init__(self, uri: str) -> None:
        self.store: Store = open_store(uri)

    def publish(self, name: str, bundle: "Bundle") -> Version:
        """Add a bundle as the next version; a bundle that was published before keeps its version."""
        MODEL_NAME.check("model name", name)
        model = self.store / name
        digest = bundle.digest()
        known = self.versions(name)
        for version in known:
            if version.digest == digest:
                return version
        target = model / "bundles" / digest[:16]
        if not bundle.is_saved(target):
            bundle.save(target)
        created = datetime.now(UTC).isoformat(timespec="seconds")
        first = known[-1].number + 1 if known else 1
        return self._claim_number(Version(name, first, digest, created, bundle.lineage))

    def _claim_number(self, version: Version) -> Version:
        """Write the version under the next free number; return another publisher's version of the same bundle instead.

        The search starts after the versions that `publish` compared, so that it sees every later one.
        """
        model = self.store / version.name
        record = {"digest": version.digest, "created": version.created, "lineage": version.lineage.tree()}
        while True:
            path = f"versions/{version.number:06d}.json"
            try:
                model.write_once(path, json.dumps(record, indent=2).encode())
            except AlreadyExistsError:
                other = _read_version(model, version.name, path)
                if other.digest == version.digest:
                    return other
                version = replace(version, number=version.number + 1)
            else:
                return version

    def names(self) -> list[str]:
        """List every model that has a version."""
        return sorted({info.path.split("/")[0] for info in self.store.list() if "/versions/" in info.path})

    def versions(self, name: str) -> list[Version]:
        """List all versions of a model, oldest first; the list is empty for an unknown name."""
        MODEL_NAME.check("model name", name)
        model = self.store / name
        versions = [_read_version(model, name, info.path) for info in model.list("versions")]
        return sorted(versions, key=lambda version: version.number)

    def aliases(self, name: str) -> dict[str, int]:
        """Return the aliases of a model, each with the number of its version."""
        MODEL_NAME.check("model name", name)
        model = self.store / name
        numbers = {}
        for info in model.list("aliases"):
            with _damage_named(model, info.path):
                numbers[_stem(info.path)] = int(json.loads(model.read(info.path))["version"])
        return numbers

    def resolve(self, reference: str) -> Version:
        """Resolve ``name``, ``name@latest``, ``name@3`` or ``name@alias`` to a version.

        Raises:
            NotFoundError: there is no such model, version or alias; the message lists those that exist.
        """
        name, _, which = reference.partition("@")
        versions = self.versions(name)
        if not versions:
            known = ", ".join(self.names()) or "none yet"
            raise NotFoundError(f"no model {name!r} in the registry {self.store.describe()}; models there: {known}")
        if which in ("", LATEST):
            return versions[-1]
        aliases = self.aliases(name)
        wanted = aliases.get(which, int(which) if which.isdecimal() else None)
        for version in versions:
            if version.number == wanted:
                return version
        raise NotFoundError(
            f"model {name!r} has no version or alias {which!r}; versions: 1 to {versions[-1].number}, "
            f"aliases: {', '.join([LATEST, *aliases])}"
        )

    def load(self, reference: str, device: str = "cpu") -> tuple[Version, "Encoder"]:
        """Load the encoder of a reference, and verify its files.

        Raises:
            NotFoundError: see `resolve`.
            BundleError: the bundle is damaged.
        """
        from raylens.registry.bundle import Bundle
        from raylens.registry.encoder import Encoder

        version = self.resolve(reference)
        return version, Encoder(Bundle.load(self.bundle_store(version), version.digest), device)

    def bundle_store(self, version: Version) -> Store:
        """Return the store of a version's files."""
        return self.store / version.name / "bundles" / version.digest[:16]

    def promote(self, name: str, alias: str, number: int) -> Version:
        """Point an alias at a version, atomically.

        Raises:
            NotFoundError: there is no such version.
            ConflictError: another process moved the alias at the same moment.
        """
        MODEL_NAME.check("alias", alias)
        if alias == LATEST or alias.isdecimal():
            raise ConfigError(f"alias = {alias!r}: 'latest' and numbers already have a meaning; choose a word")
        version = self.resolve(f"{name}@{number}")
        model, path = self.store / name, f"aliases/{alias}.json"
        try:
            _, current = model.read_with_version(path)
        except NotFoundError:
            current = None
        try:
            model.compare_and_set(path, json.dumps({"version": number}).encode(), current)
        except ConflictError:
            raise ConflictError(
                f"alias {name}@{alias} was moved by another process at the same moment: check it, then retry"
            ) from None
        return version


def _read_version(model: Store, name: str, path: str) -> Version:
    with _damage_named(model, path):
        record = _Record.model_validate_json(model.read(path))
        return Version(name, int(_stem(path)), record.digest, record.created, record.lineage)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".json")


@contextmanager
def _damage_named(model: Store, path: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        why = explain(error, _Record) if isinstance(error, ValidationError) else repr(error)
        raise BundleError(
            f"{path} of the model at {model.describe()} is not what raylens writes there ({why}): "
            "restore it, or move it away"
        ) from None
