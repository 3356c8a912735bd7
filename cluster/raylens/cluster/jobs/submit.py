"""Submitting, once: the same id with the same content is the same job, however often it is asked for."""

from collections.abc import Iterable, Mapping

from raylens.cluster.jobs.api import Job, Jobs
from raylens.cluster.jobs.package import Package, cached, keep
from raylens.cluster.jobs.submission import Submission, next_id, submitted
from raylens.errors import ClusterError, UnansweredError

__all__ = ["Outcome", "check_version", "retry", "submit"]


class Outcome:
    """What a submission came to."""

    def __init__(self, submission_id: str, *, new: bool, uploaded: tuple[str, ...] = ()) -> None:
        self.submission_id = submission_id
        self.new = new
        """Whether there was no such job before."""
        self.uploaded = uploaded
        """Packages that the cluster did not have."""


def check_version(jobs: Jobs, ours: str) -> None:
    """Ask the cluster which Ray it runs.

    Raises:
        UnansweredError: nobody answers.
        ClusterError: another minor version than ``ours``, for which raylens is not made, or the token is refused.
    """
    theirs = jobs.ray_version()
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ClusterError(f"{jobs} runs Ray {theirs}, this raylens is made for {ours}: use an image with that version")


def submit(
    jobs: Jobs, submission_id: str, submission: Submission, packages: Iterable[Package], metadata: Mapping[str, str]
) -> Outcome:
    """Bring what the cluster lacks, and start the job, unless it is there already.

    Raises:
        ClusterError: the id is that of another job.
        UnansweredError: nobody answers; the message says so where it is not known whether the job was started.
    """
    job = jobs.find(submission_id)
    if job is not None:
        return _same(job, submission)
    uploaded = []
    for package in packages:
        keep(package)
        uploaded += [package.name] if jobs.upload(package) else []
    try:
        new = jobs.submit(submission.request(submission_id, metadata))
    except UnansweredError as error:
        raise UnansweredError(
            f"{error} Whether the job was started is not known: the same command with --id {submission_id} follows it, "
            "or starts it"
        ) from None
    if not new:  # somebody else was faster
        return _same(jobs.get(submission_id), submission)
    return Outcome(submission_id, new=True, uploaded=tuple(uploaded))


def retry(jobs: Jobs, submission_id: str) -> Outcome:
    """Submit a job that failed or was stopped once more, under the next id; training goes on from its checkpoint.

    Raises:
        ClusterError: it runs, or has succeeded, or its code is neither on the cluster nor on this machine any more.
    """
    job = jobs.get(submission_id)
    if not job.ended:
        raise ClusterError(
            f"job {submission_id!r} is {job.status}: stop it first, or follow it with `raylens jobs logs -f`"
        )
    if job.status == "SUCCEEDED":
        raise ClusterError(f"job {submission_id!r} has succeeded: there is nothing to try again")
    before = submitted(job)
    again = before.model_copy(update={"attempt": before.attempt + 1})
    packages = [_again(jobs, submission_id, name) for name in again.packages]
    metadata = {key: value for key, value in (job.metadata or {}).items() if not key.startswith("job_")}
    metadata["raylens.retry_of"] = submission_id
    new_id = next_id(submission_id, again.attempt)
    return submit(jobs, new_id, again, [one for one in packages if one is not None], metadata)


def _again(jobs: Jobs, submission_id: str, name: str) -> Package | None:
    """A package that has to be brought once more; None where the cluster still has it."""
    if jobs.has(name):
        return None
    package = cached(name)
    if package is None:
        raise ClusterError(
            f"{name}, of which job {submission_id!r} was made, is neither on the cluster any more nor on this machine: "
            "submit the command anew"
        )
    return package


def _same(job: Job, submission: Submission) -> Outcome:
    before = submitted(job)
    if before.fingerprint != submission.fingerprint:
        raise ClusterError(
            f"there is a job {job.submission_id!r} ({job.status}) of other content: "
            f"{'; '.join(submission.differences(before))}. Choose another --id"
        )
    return Outcome(str(job.submission_id), new=False)
