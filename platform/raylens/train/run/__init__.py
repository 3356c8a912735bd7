"""A run from its start to its registered model: preparation, launch, worker and event bus."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.train.run.data_lock import load_manifests
    from raylens.train.run.fork import scale_shift
    from raylens.train.run.launch import fit
    from raylens.train.run.prepare import RUN_SETTINGS, run_store

__all__ = [
    "RUN_SETTINGS",
    "fit",
    "load_manifests",
    "run_store",
    "scale_shift",
]

__getattr__ = lazy_face(
    __name__,
    {
        "RUN_SETTINGS": "prepare",
        "fit": "launch",
        "load_manifests": "data_lock",
        "run_store": "prepare",
        "scale_shift": "fork",
    },
)
