"""The data of a run, recorded at its first start and verified at every later one."""

import json
from collections.abc import Sequence

from raylens.config import SourceConfig
from raylens.data import Manifest, manifest_for, ray_map
from raylens.errors import ManifestError, NotFoundError
from raylens.messages import Say, warning
from raylens.storage import Store, open_store

__all__ = ["load_manifests", "lock_manifests"]

NAME = "data.json"


def load_manifests(run: Store, sources: Sequence[SourceConfig], cache: Store, say: Say) -> list[Manifest]:
    """Return the manifest of each data set, and verify that a resumed run has the data that it began with.

    Raises:
        ManifestError: there are no shards, none is usable, or a shard has changed since the run began; names it.
    """
    manifests = [_manifest(source, cache, say) for source in sources]
    for manifest, (home, digest) in zip(manifests, _locked(run), strict=False):
        if manifest.digest != digest:
            raise ManifestError(
                f"{manifest.source.config_uri} differs from the data that run {run.describe()} began with: "
                f"{_changes(Manifest.load(open_store(home)), manifest)}. Restore the old shards, or start a new run "
                "with another name"
            )
    return manifests


def lock_manifests(run: Store, manifests: Sequence[Manifest]) -> None:
    """Record the data of a run at its first start."""
    if not _locked(run):
        rows = [{"manifest": manifest.home, "digest": manifest.digest} for manifest in manifests]
        run.write(NAME, json.dumps(rows, indent=1).encode())


def _locked(run: Store) -> list[tuple[str, str]]:
    try:
        return [(str(row["manifest"]), str(row["digest"])) for row in json.loads(run.read(NAME))]
    except NotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise ManifestError(
            f"{run.describe()}/{NAME} is damaged ({error}): start a new run with another name"
        ) from None


def _manifest(config: SourceConfig, cache: Store, say: Say) -> Manifest:
    say(f"indexing {config.uri}")
    manifest = manifest_for(config, cache, ray_map, _IndexProgress(say))
    say(
        f"{len(manifest):,} samples in {manifest.table.num_rows:,} shards ({manifest.rejected_summary()})"
        f"{f', {manifest.source.format_name}' if manifest.source.format_name != 'tar' else ''}"
    )
    for line in manifest.warnings()[:3]:
        say(warning(line))
    return manifest


class _IndexProgress:
    """Reports the progress of indexing at every tenth."""

    def __init__(self, say: Say) -> None:
        self._say, self._reported = say, 0

    def __call__(self, done: int, shards: int) -> None:
        if done < shards and done * 10 // shards > self._reported:
            self._reported = done * 10 // shards
            self._say(f"indexed {done:,} of {shards:,} shards")


def _changes(old: Manifest | None, new: Manifest) -> str:
    """Return which shards differ, the first few by name."""
    if old is None:
        return "its shards changed, and the old manifest is gone"
    before, after = (_shards(manifest) for manifest in (old, new))
    differing = [f"{path} changed" for path in before if path in after and before[path] != after[path]]
    differing += [f"{path} is gone" for path in before if path not in after]
    differing += [f"{path} is new" for path in after if path not in before]
    more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
    return ", ".join(differing[:3]) + more


def _shards(manifest: Manifest) -> dict[str, str]:
    return dict(zip(manifest.table["path"].to_pylist(), manifest.table["digest"].to_pylist(), strict=True))
