"""Jobs: the packages that are uploaded to a cluster, their submission, which happens once, and their logs."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.cluster.jobs.api import Job, Jobs
    from raylens.cluster.jobs.checkout import pinned, revision
    from raylens.cluster.jobs.logs import follow, wait
    from raylens.cluster.jobs.package import Package, file_package
    from raylens.cluster.jobs.submission import FILES_VARIABLE, KEY, WHEEL_VARIABLE, Submission, check_metadata
    from raylens.cluster.jobs.submit import Outcome, check_version, retry
    from raylens.cluster.jobs.wheel import Wheel, build_wheel

__all__ = [
    "FILES_VARIABLE",
    "KEY",
    "WHEEL_VARIABLE",
    "Job",
    "Jobs",
    "Outcome",
    "Package",
    "Submission",
    "Wheel",
    "build_wheel",
    "check_metadata",
    "check_version",
    "file_package",
    "follow",
    "pinned",
    "retry",
    "revision",
    "wait",
]

__getattr__ = lazy_face(
    __name__,
    {
        "FILES_VARIABLE": "submission",
        "KEY": "submission",
        "WHEEL_VARIABLE": "submission",
        "Job": "api",
        "Jobs": "api",
        "Outcome": "submit",
        "Package": "package",
        "Submission": "submission",
        "Wheel": "wheel",
        "build_wheel": "wheel",
        "check_metadata": "submission",
        "check_version": "submit",
        "file_package": "package",
        "follow": "logs",
        "pinned": "checkout",
        "retry": "submit",
        "revision": "checkout",
        "wait": "logs",
    },
)
