"""Submitting a job once: the same ID with the same content is the same job, however often it is submitted."""

from collections.abc import Iterable, Mapping

from raylens.cluster.jobs.api import Job, Jobs
from raylens.cluster.jobs.package import Package, cached, keep
from raylens.cluster.jobs.submission import Submission, next_id, submitted
from raylens.errors import ClusterError, UnansweredError

__all__ = ["Outcome", "check_version", "retry", "submit"]


class Outcome:
    """The result of submitting a job."""

    def __init__(self, submission_id: str, *, new: bool, uploaded: tuple[str, ...] = ()) -> None:
        self.submission_id = submission_id
        self.new = new
        """Whether the job did not exist before."""
        self.uploaded = uploaded
        """Names of the packages that were uploaded, because the cluster lacked them."""


def check_version(jobs: Jobs, ours: str) -> None:
    """Check that the cluster runs the minor version of Ray that raylens is made for.

    Raises:
        UnansweredError: nobody answers.
        ClusterError: the minor version differs from ``ours``, or the token is refused.
    """
    theirs = jobs.ray_version()
    if theirs.split(".")[:2] != ours.split(".")[:2]:
        raise ClusterError(f"{jobs} runs Ray {theirs}, this raylens is made for {ours}: use an image with that version")


def submit(
    jobs: Jobs, submission_id: str, submission: Submission, packages: Iterable[Package], metadata: Mapping[str, str]
) -> Outcome:
    """Upload the packages that the cluster lacks, and start the job unless it exists already.

    Raises:
        ClusterError: another job has the ID.
        UnansweredError: nobody answers; the message says if it is unknown whether the job was started.
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
            f"{error} It is unknown whether the job was started: the same command with --id {submission_id} "
            "follows it, or starts it"
        ) from None
    if not new:  # another process was faster
        return _same(jobs.get(submission_id), submission)
    return Outcome(submission_id, new=True, uploaded=tuple(uploaded))


def retry(jobs: Jobs, submission_id: str) -> Outcome:
    """Submit a failed or stopped job again under the next ID; training continues from its checkpoint.

    Raises:
        ClusterError: the job runs or has succeeded, or neither the cluster nor this machine has its code any more.
    """
    job = jobs.get(submission_id)
    if not job.ended:
        raise ClusterError(
            f"job {submission_id!r} is {job.status}: stop it first, or follow it with `raylens jobs logs -f`"
        )
    if job.status == "SUCCEEDED":
        raise ClusterError(f"job {submission_id!r} has succeeded: there is nothing to retry")
    before = submitted(job)
    again = before.model_copy(update={"attempt": before.attempt + 1})
    packages = [_again(jobs, submission_id, name) for name in again.packages]
    metadata = {key: value for key, value in (job.metadata or {}).items() if not key.startswith("job_")}
    metadata["raylens.retry_of"] = submission_id
    new_id = next_id(submission_id, again.attempt)
    return submit(jobs, new_id, again, [package for package in packages if package is not None], metadata)


def _again(jobs: Jobs, submission_id: str, name: str) -> Package | None:
    """Return a package that must be uploaded again; None if the cluster still has it."""
    if jobs.has(name):
        return None
    package = cached(name)
    if package is None:
        raise ClusterError(
            f"neither the cluster nor this machine has {name} any more, the code or files of job {submission_id!r}: "
            "submit the command again"
        )
    return package


def _same(job: Job, submission: Submission) -> Outcome:
    before = submitted(job)
    if before.fingerprint != submission.fingerprint:
        raise ClusterError(
            f"there is a job {job.submission_id!r} ({job.status}) with other content: "
            f"{'; '.join(submission.differences(before))}. Choose another --id"
        )
    return Outcome(str(job.submission_id), new=False)
