"""``raylens jobs``: commands that run on a cluster."""

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
    from raylens.cluster.jobs.api import Job, Jobs

__all__ = ["app"]

TIMED_OUT = 124
"""As of the command `timeout`."""

app = typer.Typer(
    no_args_is_help=True,
    help="Run raylens commands on a Ray cluster: `raylens jobs submit -- train digits --set storage=s3://...`.",
    epilog="Clusters have names: `raylens contexts add --help`. One on this machine: `raylens cluster local`.",
)
Id = Annotated[str, typer.Argument(metavar="ID", help="Of the job.")]
Follow = Annotated[bool, typer.Option("--follow/--no-follow", help="Print what the job prints, and end like it.")]


@app.command("submit")
def submit(
    context: typer.Context,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="A raylens command, without raylens.")],
    cluster: ClusterName = None,
    submission_id: Annotated[str | None, typer.Option("--id", help="The job's; a new one unless given.")] = None,
    follow: Follow = True,
    code: Annotated[str | None, typer.Option(help="wheel: this checkout's code. image: the cluster's own.")] = None,
    source: Annotated[Path | None, typer.Option(help="The checkout, if not the one of this raylens.")] = None,
    extras: Annotated[
        list[str] | None, typer.Option("--extra", help="Extra of raylens to install. Repeatable.")
    ] = None,
    secrets: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            metavar="NAME[=env:OTHER|=file:/PATH|=path:/PATH]",
            help="A variable whose value the nodes have: never given here. Repeatable.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable that is not secret. Repeatable.")
    ] = None,
    metadata: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="To find it by. Repeatable.")] = None,
    cpus: Annotated[
        float | None, typer.Option(min=0, help="Reserved by the driver; without any, the head has it.")
    ] = None,
    gpus: Annotated[float | None, typer.Option(min=0, help="Reserved by the driver.")] = None,
    memory: Annotated[str | None, typer.Option(metavar="BYTES", help="Reserved by the driver, e.g. 2G.")] = None,
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Reserved by the driver. Repeatable.")
    ] = None,
) -> None:
    """Run a raylens command on a cluster, follow it, and end with its exit status.

    The command is checked here first. Its YAML files and this checkout's code travel with it; data and results are in
    object storage, or on a volume that all nodes have. Ctrl-C leaves the job running.

    The same --id with the same content again follows the job that is there; it is never started twice.

    Examples:

        raylens jobs submit -- train vit_b32 --set data.train=s3://pets/shards --set storage=s3://pets/runs

        raylens jobs submit --cluster team --id pets-1 --secret WANDB_API_KEY --extra wandb -- train mine.yaml

        raylens jobs submit --secret AWS_SECRET_ACCESS_KEY=file:/etc/aws/key -- sweep mine.yaml
    """
    from raylens.cluster.contexts import context_of
    from raylens.cluster.jobs.api import Jobs
    from raylens.workloads.submit.command import job_command
    from raylens.workloads.submit.jobs import Order, submit_order
    from raylens.workloads.submit.options import pairs, resources_of, secrets_of

    name, context = context_of(cluster)
    variables = {**context.env, **pairs(env, "--env")}
    order = Order(
        command=job_command(root_command(context), command, variables),
        submission_id=submission_id,
        code=code or context.code,
        source=source,
        extras=extras or (context.extras if (code or context.code) == "wheel" else ()),
        env=variables,
        secrets=secrets_of(secrets, context.secrets),
        resources=resources_of(cpus, gpus, memory, resource, context.resources),
        metadata=pairs(metadata, "--metadata"),
    )
    with Jobs(name, context) as jobs:
        outcome = submit_order(jobs, order, _say)
        if follow:
            _follow(jobs, outcome.submission_id)
        else:
            typer.echo(outcome.submission_id)


@app.command("list")
def list_jobs(cluster: ClusterName = None, as_json: AsJson = False) -> None:
    """List the jobs of a cluster, the newest first. A cluster forgets them when its head ends."""
    from raylens.workloads.submit.jobs import list_page

    with _of(cluster) as jobs:
        print_page(list_page(jobs.all(), as_json))


@app.command("show")
def show(submission_id: Id, cluster: ClusterName = None, as_json: AsJson = False) -> None:
    """Show a job: its status and why, where its driver is, what it runs, of whom, from which revision."""
    from raylens.workloads.submit.jobs import show_page

    with _of(cluster) as jobs:
        print_page(show_page(jobs.get(submission_id), as_json))


@app.command("logs")
def logs(
    submission_id: Id,
    cluster: ClusterName = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the job has ended; end like it.")] = False,
) -> None:
    """Print what a job has printed.

    Example:

        raylens jobs logs -f train-vit_b32-1a2b3c4d
    """
    with _of(cluster) as jobs:
        jobs.get(submission_id)  # a cluster that was never there is not waited for
        if follow:
            _follow(jobs, submission_id)
        else:
            _write(jobs.logs(submission_id))


@app.command("stop")
def stop(submission_id: Id, cluster: ClusterName = None) -> None:
    """Stop a job, and return when it has stopped. A run saves first, and goes on from there with `jobs retry`."""
    from raylens.cluster.jobs.logs import wait

    with _of(cluster) as jobs:
        job = jobs.get(submission_id)
        if not job.ended:
            jobs.stop(submission_id)
            job = wait(jobs, submission_id, _say)
        _say(f"{submission_id} is {job.status}")


@app.command("retry")
def retry(submission_id: Id, cluster: ClusterName = None, follow: Follow = True) -> None:
    """Submit a job that failed or was stopped once more, as ID-2, ID-3 and so on: same code, same command.

    A run goes on from its newest checkpoint, a sweep where it was.
    """
    from raylens.cluster.jobs.submit import retry as again

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
    timeout: Annotated[float | None, typer.Option(min=0, help="Seconds; then end with status 124.")] = None,
) -> None:
    """Wait until a job has ended, and end with its exit status."""
    from raylens.cluster.jobs.logs import wait

    with _of(cluster) as jobs, _leaving(submission_id):
        jobs.get(submission_id)  # a cluster that was never there is not waited for
        job = wait(jobs, submission_id, _say, timeout)
    if not job.ended:
        _say(f"{submission_id} is {job.status} after {timeout:g} s")
        raise Ended(TIMED_OUT)
    _end_like(job)


@contextmanager
def _of(cluster: str | None) -> "Iterator[Jobs]":
    from raylens.cluster.contexts import context_of
    from raylens.cluster.jobs.api import Jobs

    with Jobs(*context_of(cluster)) as jobs:
        yield jobs


def _follow(jobs: "Jobs", submission_id: str) -> None:
    from raylens.cluster.jobs.logs import follow

    with _leaving(submission_id):
        job = follow(jobs, submission_id, _write, _say)
    _end_like(job)


@contextmanager
def _leaving(submission_id: str) -> Iterator[None]:
    """Ctrl-C leaves the job as it is."""
    try:
        yield
    except KeyboardInterrupt:
        _say(
            f"\n{submission_id} goes on. Follow it: raylens jobs logs -f {submission_id}; "
            f"stop it: raylens jobs stop {submission_id}"
        )
        raise Ended(INTERRUPTED) from None


def _end_like(job: "Job") -> None:
    """Return if it succeeded; else end with its status, and say why."""
    if job.status == "SUCCEEDED":
        _say(f"{job.submission_id} succeeded")
        return
    if job.status == "STOPPED":
        _say(f"{job.submission_id} was stopped; raylens jobs retry {job.submission_id} goes on with it")
        raise Ended(INTERRUPTED)
    if job.driver_exit_code:
        # What it has to say about that stands in its log, and the log on the screen, or behind `jobs logs`.
        _say(f"{job.submission_id} failed with exit status {job.driver_exit_code}; its log says why")
        raise Ended(job.driver_exit_code if job.driver_exit_code > 0 else FAILED)
    raise ClusterError(f"{job.submission_id} failed: {' '.join((job.message or 'no reason given').split())[:1000]}")


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
