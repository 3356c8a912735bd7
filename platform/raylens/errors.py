"""The tree of exceptions that raylens raises on purpose.

    RaylensError
    ├── ConfigError              a setting is unknown, mistyped or out of range
    ├── MissingExtraError        a package of an extra of raylens is not installed
    ├── StorageError             a request to an object store failed
    │   ├── NotFoundError        no such object, folder or bucket
    │   ├── AlreadyExistsError   a write-once object exists already
    │   ├── ConflictError        a compare-and-set lost against another writer
    │   ├── ChangedError         an object is no longer the one that was indexed
    │   └── UnreachableError     endpoint, network, credentials or permission
    ├── InputError               an image or a text that cannot be used
    ├── DataError                shards, manifest or plan
    │   ├── ManifestError        no samples, or a manifest that does not fit its shards
    │   │   └── DamagedError     a shard that is truncated or corrupt
    │   ├── CursorError          a checkpoint's position in the data does not fit this run
    │   └── QuarantineError      more bad samples than the budget allows
    ├── TrainingError            a run cannot continue (the message has the diagnosis)
    │   ├── CheckpointError      a checkpoint is incomplete, corrupt or does not fit this run
    │   └── WorkersLostError     a run's processes were lost, or did not start, more often than it retries
    ├── BundleError              a model bundle is incomplete, corrupt or does not fit its config
    ├── ClusterError             Ray cannot provide what is requested
    │   └── UnansweredError      a cluster does not answer; it may answer a moment later
    └── ServingError             the embedding API cannot start, or gives a wrong answer
        ├── OverloadedError      there are more requests than there is room for
        └── UnavailableError     no replica can answer at the moment

A message names the field or object, its value, and what to do about it. Every exception takes its
message as its only argument, so Ray can pickle all of them between processes.
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
    """Return the error of raylens that a framework's exception wraps, if there is one.

    Ray wraps an exception in classes that hold it in an attribute. Some of them also claim its class, but their
    message is a traceback, so the attributes are searched first.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        carried = (getattr(error, name, None) for name in ("_base_exc", "controller_failure", "cause"))
        inner = next((cause for cause in carried if isinstance(cause, BaseException)), None)
        if inner is None and isinstance(error, RaylensError):
            first, *more = str(error).splitlines() or [""]
            # Ray Data appends advice to the message of the exception that it holds; our messages have one line.
            return type(error)(first) if more else error
        error = inner if inner is not None else error.__cause__
    return None


def message_of(error: BaseException) -> str:
    """Return the message of an error; for an error that is not ours, its class comes first."""
    return str(error) if isinstance(error, RaylensError) else f"{type(error).__name__}: {error}"


class ConfigError(RaylensError):
    """A setting is unknown, of the wrong type, or out of range."""


class MissingExtraError(RaylensError):
    """A package that an extra of raylens brings is not installed; the message names the extra."""


class StorageError(RaylensError):
    """A request to an object store failed."""


class NotFoundError(StorageError):
    """There is no such object, folder or bucket."""


class AlreadyExistsError(StorageError):
    """A write-once object exists already."""


class ConflictError(StorageError):
    """A compare-and-set failed, because the object changed since it was read."""


class ChangedError(StorageError):
    """An object is no longer the one that was indexed, or whose first part was read."""


class UnreachableError(StorageError):
    """The store cannot be reached or refuses access: endpoint, network, credentials or permission."""


class InputError(RaylensError):
    """An image or a text cannot be used."""


class DataError(RaylensError):
    """The shards, the manifest or the plan cannot be used."""


class ManifestError(DataError):
    """A data set has no samples, or a manifest does not fit its shards."""


class DamagedError(ManifestError):
    """A shard is truncated or corrupt; the samples before the damage can be used."""


class CursorError(DataError):
    """A checkpoint's position in the data does not fit this run."""


class QuarantineError(DataError):
    """More samples were unusable than the budget allows."""


class TrainingError(RaylensError):
    """A run cannot continue; the message has the diagnosis."""


class CheckpointError(TrainingError):
    """A checkpoint is incomplete, corrupt, or does not fit this run."""


class WorkersLostError(TrainingError):
    """A run's processes were lost, or did not start, more often than it retries."""


class BundleError(RaylensError):
    """A model bundle is incomplete, corrupt, or does not fit its configuration."""


class ClusterError(RaylensError):
    """Ray cannot provide what is requested."""


class UnansweredError(ClusterError):
    """A cluster does not answer: it is not there yet, or no longer; the same request may succeed later."""


class ServingError(RaylensError):
    """The embedding API cannot start, or gives a wrong answer."""


class OverloadedError(ServingError):
    """There are more requests than there is room for; the same request may succeed a moment later."""


class UnavailableError(ServingError):
    """No replica can answer at the moment."""
