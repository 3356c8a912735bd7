"""The command ``raylens doctor``, which examines a cluster before a run."""

from typing import Annotated

import typer

from raylens.workloads.cli.options import FAILED, Ended, NumCpus
from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command ``doctor`` with the root."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    cluster: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="NAME|ADDRESS",
            help="A context or http://HOST:8265 (the command runs there as a job), or a Ray address (auto, "
            "ray://host:10001). By default, only this machine is examined.",
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(metavar="URI", help="A folder, s3:// or gs:// URI that every node tries to use.")
    ] = None,
    megabytes: Annotated[
        int, typer.Option(min=1, help="Megabytes that each node writes to the storage and reads.")
    ] = 64,
    seconds: Annotated[float, typer.Option(min=1, help="Seconds within which a node must answer a question.")] = 120,
    num_cpus: NumCpus = None,
    as_json: AsJson = False,
) -> None:
    """Examine every node of a cluster before a run, and say how to fix what is wrong.

    The checks of each node cover versions of Python, Ray, torch, DeepSpeed, NCCL and the driver; reading, writing and
    conditional writing of the storage, and their speed; the clock; shared memory, disk and open files; and GPUs as
    Ray, the driver and torch see them. Then all nodes run a small all-reduce together. A node that does not answer is
    named, and the others are reported.

    The command takes no CPUs of the cluster. It writes to a folder of its own in the storage, and deletes it. The exit
    status is 1 if a check failed.

    Examples:

        raylens doctor --storage runs

        raylens doctor --cluster team --storage s3://pets/runs

        raylens doctor --cluster ray://head:10001 --storage "s3://pets/runs?endpoint_override=http://minio:9000" --json
    """
    if cluster is not None and _is_submitted(cluster):
        _submit(context, cluster, storage, megabytes, seconds, as_json=as_json)
        return
    from raylens.cluster import session
    from raylens.cluster.doctor import Limits, examine
    from raylens.workloads.pages.doctor import doctor_page
    from raylens.workloads.pages.terminal import Terminal

    with Terminal() as terminal, session(cluster, num_cpus, say=terminal.say):
        report = examine(storage, Limits(seconds=seconds, megabytes=megabytes), terminal.say)
    print_page(doctor_page(report, as_json))
    if report.with_status("failed"):
        raise Ended(FAILED)


def _is_submitted(cluster: str) -> bool:
    """Return whether a cluster is reached through the Jobs API rather than by Ray itself.

    Raises:
        ConfigError: the text is neither an address nor the name of a context.
    """
    from raylens.cluster import read_contexts

    if cluster.startswith(("http://", "https://")):
        return True
    if cluster == "auto" or ":" in cluster:
        return False
    read_contexts().get(cluster)
    return True


def _submit(
    context: typer.Context, cluster: str, storage: str | None, megabytes: int, seconds: float, *, as_json: bool
) -> None:
    from raylens.workloads.cli.jobs import submit

    options = [f"--megabytes={megabytes}", f"--seconds={seconds:g}"]
    options += [f"--storage={storage}"] if storage is not None else []
    submit(context, ["doctor", *options, *(["--json"] if as_json else [])], cluster=cluster)
