"""The command ``raylens cluster local``, which runs a cluster of several nodes on this machine."""

import contextlib
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from raylens.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from raylens.cluster.local import NodeShape
    from raylens.placement import Group

__all__ = ["add_to"]

HEADLESS_CPUS = 0
LOOK_SECONDS = 1.0
DETACHED = "from raylens.workloads.cli import main; main()"


def add_to(app: typer.Typer) -> None:
    """Register the command ``local`` with its group."""
    app.command("local")(local)


def local(
    nodes: Annotated[int, typer.Option(min=1, help="Number of nodes, including the head.")] = 3,
    decode: Annotated[int, typer.Option(min=0, help="Nodes that only decode; the head then takes no work.")] = 0,
    train: Annotated[int, typer.Option(min=0, help="Nodes that only train.")] = 0,
    serve: Annotated[int, typer.Option(min=0, help="Nodes that only serve.")] = 0,
    cpus: Annotated[int, typer.Option(min=1, help="Logical CPUs of each node.")] = 2,
    gpus: Annotated[
        int, typer.Option(min=0, help="GPUs that each node declares; with groups, each training node.")
    ] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the dashboard and Jobs API; 0 takes a free one.")
    ] = 8265,
    name: Annotated[str, typer.Option(help="Name of the context with which jobs reach the cluster.")] = "local",
    detach: Annotated[bool, typer.Option("--detach", help="Leave the cluster running in the background.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop the cluster in the background.")] = False,
) -> None:
    """Run a real cluster of several nodes on this machine, until Ctrl-C.

    The cluster requires a token, which its context names. It ends with this command, however that ends.

    Examples:

        raylens cluster local --nodes 3

        raylens jobs submit --cluster local -- quickstart --storage /tmp/try

        raylens cluster local --decode 2 --train 2 --detach && raylens cluster local --stop
    """
    from raylens.cluster.local import state

    if stop:
        state.stop(name)
        typer.echo(f"stopped: {name}", err=True)
        return
    pid = state.running(name)
    if pid is not None:
        raise ClusterError(f"local cluster {name!r} is running (pid {pid}): --stop ends it, --name starts another")
    if detach:
        _in_background(name)
        return
    counts: dict[Group, int] = {"decode": decode, "train": train, "serve": serve}
    groups = {group: count for group, count in counts.items() if count}
    _run(name, _shapes(nodes, groups, cpus, gpus), port)


def _shapes(nodes: int, groups: "dict[Group, int]", cpus: int, gpus: int) -> "list[NodeShape]":
    """Return the shapes of the head and the other nodes; with groups, the head has no CPUs and takes no work."""
    from raylens.cluster import store_bytes
    from raylens.cluster.local import NodeShape
    from raylens.placement import GroupSize, node_labels

    total = 1 + sum(groups.values()) if groups else nodes
    store = store_bytes(cpus * total) // total
    if not groups:
        return [NodeShape(cpus=cpus, gpus=gpus, store_bytes=store)] * nodes
    gpus_of = {group: gpus if group == "train" else 0 for group in groups}
    sizes = {group: GroupSize(nodes=count, cpus=cpus, gpus=gpus_of[group]) for group, count in groups.items()}
    head = NodeShape(cpus=HEADLESS_CPUS, store_bytes=store, labels=node_labels("head", sizes))
    others = [
        NodeShape(cpus=cpus, gpus=gpus_of[group], store_bytes=store, labels=node_labels(group, sizes))
        for group, count in groups.items()
        for _ in range(count)
    ]
    return [head, *others]


def _run(name: str, shapes: "list[NodeShape]", port: int) -> None:
    from raylens.cluster import update_contexts
    from raylens.cluster.local import LocalCluster, state
    from raylens.interrupts import sigterm_interrupts
    from raylens.workloads.pages.terminal import Terminal

    _check_context(name)
    with Terminal() as terminal, sigterm_interrupts(), contextlib.suppress(KeyboardInterrupt):
        cluster = LocalCluster(shapes, port, terminal.say)
        terminal.title(f"cluster {name}: {len(shapes)} nodes on this machine")
        with cluster:
            update_contexts(lambda contexts: contexts.replaced(name, cluster.context))
            state.record(name, cluster.context.address)
            try:
                terminal.say(f"ready: {cluster.context.address}, context {name!r}, logs in {cluster.folder}")
                terminal.say(f"submit with `raylens jobs submit --cluster {name} -- ...`; stop with Ctrl-C")
                while True:
                    time.sleep(LOOK_SECONDS)
                    cluster.check()
            finally:
                _forget_context(name, cluster.context.address)
                terminal.say("stopping")
    # The record is deleted last, because `--stop` waits until it is gone.
    state.forget(name)
    typer.echo("stopped", err=True)


def _check_context(name: str) -> None:
    """Refuse to overwrite the context of a cluster elsewhere."""
    from raylens.cluster import read_contexts

    context = read_contexts().contexts.get(name)
    if context is not None and not context.address.startswith("http://127.0.0.1:"):
        raise ConfigError(f"--name {name}: a context of that name exists, for {context.address}; choose another name")


def _forget_context(name: str, address: str) -> None:
    from raylens.cluster import ClusterContexts, update_contexts

    def without(contexts: ClusterContexts) -> ClusterContexts:
        context = contexts.contexts.get(name)
        return contexts.without(name) if context is not None and context.address == address else contexts

    update_contexts(without)


def _in_background(name: str) -> None:
    """Start the same command without --detach in a session of its own; return when its cluster is up."""
    from raylens.cluster.local import state

    folder = state.state_folder()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = folder / f"{name}.log"
    words = [word for word in sys.argv[1:] if word != "--detach"]
    with log.open("wb") as sink:
        process = subprocess.Popen(  # noqa: S603 (our own words)
            [sys.executable, "-c", DETACHED, *words],
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    typer.echo(f"starting in the background, log {log}", err=True)
    try:
        while state.running(name) != process.pid:
            if process.poll() is not None:
                said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise ClusterError(said[-1].removeprefix("error: ") if said else f"it ended with {process.returncode}")
            time.sleep(LOOK_SECONDS / 4)
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    typer.echo(f"running: context {name!r}, log {log}; `raylens cluster local --stop` ends it", err=True)
