"""The commands ``raylens jobs``, which run other commands on a cluster."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylens.errors import ClusterError
from raylens.workloads.cli.options import FAILED, INTERRUPTED, ClusterName, Ended, root_command
from raylens.workloads.cli.runs import AsJson, print_page

if TYPE_CHECKING:
    from raylens.cluster.jobs import Job, Jobs

__all__ = ["app"]

TIMED_OUT = 124
"""The exit status after a timeout, as of the command `timeout`."""

app = typer.Typer(
    no_args_is_help=True,
    help="Run raylens commands on a Ray cluster: `raylens jobs submit -- train digits --set storage=s3://...`.",
    epilog="`raylens contexts add` names a cluster, and `raylens cluster local` starts one on this machine.",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="Job ID.")]
Follow = Annotated[
    bool, typer.Option("--follow/--no-follow", help="Print the job's log until it ends, and exit with its status.")
]


@app.command("submit")
def submit(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="A command of raylens, without the word raylens.")
    ],
    cluster: ClusterName = None,
    submission_id: Annotated[str | None, typer.Option("--id", help="Job ID; by default a new one.")] = None,
    follow: Follow = True,
    code: Annotated[
        str | None,
        typer.Option(help="Code of the job: wheel (your checkout's) or image (that of the cluster's image)."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Folder of the checkout; by default that of this raylens.")
    ] = None,
    extras: Annotated[
        list[str] | None, typer.Option("--extra", help="Extra of raylens that the job installs. Repeatable.")
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME[=env:OTHER|=file:/PATH|=path:/PATH]",
            help="Name of a secret variable. Each node takes its value from a variable of its own (env:) or a file's "
            "content (file:), or sets it to a path (path:). Repeatable.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Environment variable of the job, not a secret. Repeatable."),
    ] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Metadata of the job. Repeatable.")
    ] = None,
    cpus: Annotated[
        float | None, typer.Option(min=0, help="CPUs that the driver reserves; without any, it runs on the head.")
    ] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="GPUs that the driver reserves.")] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory that the driver reserves, e.g. 2G.")
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=AMOUNT", help="Custom resource that the driver reserves. Repeatable."),
    ] = None,
) -> None:
    """Run a raylens command on a cluster, follow it, and exit with its status.

    The command is checked here first. Its YAML files and your checkout's code are uploaded with it; data and results
    are in object storage, or on a volume that all nodes have. Ctrl-C leaves the job running.

    The same --id with the same content follows the existing job; a job is never started twice.

    Examples:

        raylens jobs submit -- train vit_b32 --set data.train=s3://pets/shards --set storage=s3://pets/runs

        raylens jobs submit --cluster team --id pets-1 --secret WANDB_API_KEY --extra wandb -- train mine.yaml

        raylens jobs submit --secret AWS_SECRET_ACCESS_KEY=file:/etc/aws/key -- sweep mine.yaml
    """
    from raylens.cluster import context_of
    from raylens.cluster.jobs import Jobs
    from raylens.workloads.submit.command import job_command
    from raylens.workloads.submit.jobs import JobRequest, submit_request
    from raylens.workloads.submit.options import pairs, resources_of, secrets_of

    name, target = context_of(cluster)
    variables = {**target.env, **pairs(env, "--env")}
    request = JobRequest(
        command=job_command(root_command(context), command, variables),
        submission_id=submission_id,
        code=code or target.code,
        source=source,
        extras=extras or (target.extras if (code or target.code) == "wheel" else ()),
        env=variables,
        secrets=secrets_of(secrets, target.secrets),
        resources=resources_of(cpus, gpus, memory, resource, target.resources),
        metadata=pairs(metadata, "--metadata"),
    )
    with Jobs(name, target) as jobs:
        outcome = submit_request(jobs, request, _say)
        if follow:
            _follow(jobs, outcome.submission_id)
        else:
            typer.echo(outcome.submission_id)


@app.command("list")
def list_jobs(cluster: ClusterName = None, as_json: AsJson = False) -> None:
    """List the jobs of a cluster, the newest first. Their records end with the cluster's head."""
    from raylens.workloads.submit.jobs import list_page

    with _of(cluster) as jobs:
        print_page(list_page(jobs.all(), as_json))


@app.command("show")
def show(submission_id: Id, cluster: ClusterName = None, as_json: AsJson = False) -> None:
    """Show a job: its status and the reason, its driver's node, its command, user and revision."""
    from raylens.workloads.submit.jobs import show_page

    with _of(cluster) as jobs:
        print_page(show_page(jobs.get(submission_id), as_json))


@app.command("logs")
def logs(
    submission_id: Id,
    cluster: ClusterName = None,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Follow the log until the job ends, and exit with its status.")
    ] = False,
) -> None:
    """Print the log of a job.

    Example:

        raylens jobs logs -f train-vit_b32-1a2b3c4d
    """
    with _of(cluster) as jobs:
        jobs.get(submission_id)  # fails at once if the cluster never answered
        if follow:
            _follow(jobs, submission_id)
        else:
            _write(jobs.logs(submission_id))


@app.command("stop")
def stop(submission_id: Id, cluster: ClusterName = None) -> None:
    """Stop a job, and return when it has stopped. A run saves a checkpoint first; `jobs retry` continues from it."""
    from raylens.cluster.jobs import wait

    with _of(cluster) as jobs:
        job = jobs.get(submission_id)
        if not job.ended:
            jobs.stop(submission_id)
            job = wait(jobs, submission_id, _say)
        _say(f"{submission_id} is {job.status}")


@app.command("retry")
def retry(submission_id: Id, cluster: ClusterName = None, follow: Follow = True) -> None:
    """Submit a failed or stopped job again as ID-2, ID-3 and so on, with the same code and command.

    A run continues from its newest checkpoint, a sweep from its last state.
    """
    from raylens.cluster.jobs import retry as again

    with _of(cluster) as jobs:
        outcome = again(jobs, submission_id)
        _say(f"{'submitted' if outcome.new else 'is there already'}: {outcome.submission_id} on {jobs}")
        if follow:
            _follow(jobs, outcome.submission_id)
        else:
            typer.echo(outcome.submission_id)


@app.command("wait")
def wait_for(
    submission_id: Id,
    cluster: ClusterName = None,
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds after which to exit with status 124.")] = None,
) -> None:
    """Wait until a job has ended, and exit with its status."""
    from raylens.cluster.jobs import wait

    with _of(cluster) as jobs, _leaving(submission_id):
        jobs.get(submission_id)  # fails at once if the cluster never answered
        job = wait(jobs, submission_id, _say, timeout)
    if not job.ended:
        _say(f"{submission_id} is {job.status} after {timeout:g} s")
        raise Ended(TIMED_OUT)
    _end_like(job)


@contextmanager
def _of(cluster: str | None) -> "Iterator[Jobs]":
    from raylens.cluster import context_of
    from raylens.cluster.jobs import Jobs

    with Jobs(*context_of(cluster)) as jobs:
        yield jobs


def _follow(jobs: "Jobs", submission_id: str) -> None:
    from raylens.cluster.jobs import follow

    with _leaving(submission_id):
        job = follow(jobs, submission_id, _write, _say)
    _end_like(job)


@contextmanager
def _leaving(submission_id: str) -> Iterator[None]:
    """Answer Ctrl-C inside the block by leaving the job as it is."""
    try:
        yield
    except KeyboardInterrupt:
        _say(
            f"\n{submission_id} continues to run. Follow it: raylens jobs logs -f {submission_id}; "
            f"stop it: raylens jobs stop {submission_id}"
        )
        raise Ended(INTERRUPTED) from None


def _end_like(job: "Job") -> None:
    """Return if the job succeeded; otherwise exit with its status and report the reason."""
    if job.status == "SUCCEEDED":
        _say(f"{job.submission_id} succeeded")
        return
    if job.status == "STOPPED":
        _say(f"{job.submission_id} was stopped; raylens jobs retry {job.submission_id} continues it")
        raise Ended(INTERRUPTED)
    if job.driver_exit_code:
        # The job's log has the reason, and it is on the screen or behind `jobs logs`.
        _say(f"{job.submission_id} failed with exit status {job.driver_exit_code}; its log says why")
        raise Ended(job.driver_exit_code if job.driver_exit_code > 0 else FAILED)
    raise ClusterError(f"{job.submission_id} failed: {' '.join((job.message or 'no reason given').split())[:1000]}")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
