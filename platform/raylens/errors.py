"""The tree of exceptions that raylens raises on purpose.

    RaylensError
    ├── ConfigError              a setting is unknown, mistyped or out of range
    ├── MissingExtraError        a package of an extra of raylens is not installed
    ├── StorageError             an object store did not do what was asked
    │   ├── NotFoundError        no such object, folder or bucket
    │   ├── AlreadyExistsError   a write-once object is there already
    │   ├── ConflictError        a compare-and-set lost against another writer
    │   ├── ChangedError         an object is not the one any more that was indexed
    │   └── UnreachableError     endpoint, network, credentials or permission
    ├── InputError               an image or a text that cannot be used
    ├── DataError                shards, manifest or plan
    │   ├── ManifestError        no samples, or a manifest that does not fit its shards
    │   │   └── DamagedError     a shard that ends or breaks in the middle
    │   ├── CursorError          a checkpoint's place in the data does not fit this run
    │   └── QuarantineError      more bad samples than the budget allows
    ├── TrainingError            a run cannot go on (the message carries the diagnosis)
    │   ├── CheckpointError      a checkpoint is incomplete, corrupt or does not fit this run
    │   └── WorkersLostError     a run's processes were lost, or did not start, more often than was tried again
    ├── BundleError              a model bundle is incomplete, corrupt or does not fit its config
    ├── ClusterError             Ray cannot give what was asked
    │   └── UnansweredError      a cluster does not answer; it may a moment later
    └── ServingError             the embedding API cannot start, or answers wrongly
        ├── OverloadedError      more is asked for than there is room for
        └── UnavailableError     no replica can answer at the moment

A message names the field or object, its value, and what to do about it. Every exception takes the
one message as its only argument, so all of them travel between Ray processes unharmed.
"""

__all__ = [
    "AlreadyExistsError",
    "BundleError",
    "ChangedError",
    "CheckpointError",
    "ClusterError",
    "ConfigError",
    "ConflictError",
    "CursorError",
    "DamagedError",
    "DataError",
    "InputError",
    "ManifestError",
    "MissingExtraError",
    "NotFoundError",
    "OverloadedError",
    "QuarantineError",
    "RaylensError",
    "ServingError",
    "StorageError",
    "TrainingError",
    "UnansweredError",
    "UnavailableError",
    "UnreachableError",
    "WorkersLostError",
    "message_of",
    "own_error",
]


class RaylensError(Exception):
    """Base of every error that raylens raises on purpose; the command line prints it in one line."""


def own_error(error: BaseException | None) -> RaylensError | None:
    """The error raised on purpose that lies inside what a framework made of it, if there is one.

    Ray wraps an exception in classes that carry it in an attribute, some of which claim its class as well but have a
    traceback for a message; what they carry is looked at first.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        carried = (getattr(error, name, None) for name in ("_base_exc", "controller_failure", "cause"))
        inner = next((one for one in carried if isinstance(one, BaseException)), None)
        if inner is None and isinstance(error, RaylensError):
            first, *more = str(error).splitlines() or [""]
            # Ray Data writes advice under the message of what it carries; a message of ours is one line.
            return type(error)(first) if more else error
        error = inner if inner is not None else error.__cause__
    return None


def message_of(error: BaseException) -> str:
    """Return what an error says: the message of one of ours; of any other, which may be none, the class before it."""
    return str(error) if isinstance(error, RaylensError) else f"{type(error).__name__}: {error}"


class ConfigError(RaylensError):
    """A setting is unknown, of the wrong type, or out of range."""


class MissingExtraError(RaylensError):
    """A package that an extra of raylens brings is not installed; the message names the extra."""


class StorageError(RaylensError):
    """An object store did not do what was asked."""


class NotFoundError(StorageError):
    """No such object, folder or bucket."""


class AlreadyExistsError(StorageError):
    """A write-once object exists already."""


class ConflictError(StorageError):
    """A compare-and-set lost: the object changed since it was read."""


class ChangedError(StorageError):
    """An object is not the one any more that was indexed, or whose first part was read."""


class UnreachableError(StorageError):
    """The store cannot be reached or refuses: endpoint, network, credentials or permission."""


class InputError(RaylensError):
    """An image or a text that cannot be used."""


class DataError(RaylensError):
    """Something about the shards, the manifest or the plan."""


class ManifestError(DataError):
    """A data set without samples, or a manifest that does not fit its shards."""


class DamagedError(ManifestError):
    """A shard that ends or breaks in the middle; what came before it can be used."""


class CursorError(DataError):
    """A checkpoint's place in the data does not fit this run."""


class QuarantineError(DataError):
    """More samples were unusable than the budget allows."""


class TrainingError(RaylensError):
    """A run cannot go on; the message carries the diagnosis."""


class CheckpointError(TrainingError):
    """A checkpoint is incomplete, corrupt, or does not fit this run."""


class WorkersLostError(TrainingError):
    """A run's processes were lost, or did not start, more often than was tried again."""


class BundleError(RaylensError):
    """A model bundle is incomplete, corrupt, or does not fit its configuration."""


class ClusterError(RaylensError):
    """Ray cannot give what was asked."""


class UnansweredError(ClusterError):
    """A cluster does not answer: it is not there, not yet or not any more; the same request may succeed later."""


class ServingError(RaylensError):
    """The embedding API cannot start, or answers wrongly."""


class OverloadedError(ServingError):
    """More is asked for than there is room for; the same request may succeed a moment later."""


class UnavailableError(ServingError):
    """No replica can answer at the moment."""
