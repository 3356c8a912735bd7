"""The commands ``raylens sweep``, which search settings of training runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from raylens.errors import ConfigError
from raylens.messages import with_severity
from raylens.workloads.cli.options import Address, NumCpus, SweepSet, check_file
from raylens.workloads.cli.runs import AsJson, print_page
from raylens.workloads.command_tree import RUN, RunGroup

if TYPE_CHECKING:
    from raylens.tune import SweepConfig

__all__ = ["app"]


app = typer.Typer(
    cls=RunGroup,
    no_args_is_help=True,
    help="Search settings of training runs: `raylens sweep SWEEP.yaml`. The same command again resumes the sweep.",
    epilog="`raylens sweep run --help` lists the options. A recipe with the name of a command needs `sweep run NAME`.",
)
Uri = Annotated[str, typer.Argument(metavar="URI", help="URI of a sweep's folder, e.g. sweeps/mine.")]


@app.command(RUN)
def run(
    source: Annotated[str, typer.Argument(metavar="RECIPE|FILE.yaml", help="A recipe's name, or a file of a sweep.")],
    changes: SweepSet = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Print the complete sweep and exit.")] = False,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Search a space of settings. The same command again continues where it was interrupted.

    Examples:

        raylens quickstart && raylens sweep digits

        raylens sweep digits --print-config > mine.yaml

        raylens sweep mine.yaml --set name=longer --set budget.trials=100 --set scheduler.kind=fifo
    """
    from raylens.workloads.sweeps import configure_sweep

    config = configure_sweep(source, changes or ())
    if print_config:
        from raylens.config import dump_yaml

        typer.echo(dump_yaml(config), nl=False)
        return
    _search(config, address, num_cpus)


@app.command("resume")
def resume(uri: Uri, address: Address = None, num_cpus: NumCpus = None) -> None:
    """Continue an interrupted sweep from any machine that reaches its storage.

    Ray Tune's state in the folder is a pickle: resume only sweeps whose storage nobody else can write to.
    """
    from raylens.storage import open_store
    from raylens.tune import parent_of, read_config

    config = read_config(open_store(uri))
    _search(config.model_copy(update={"storage": parent_of(uri, config.name)}), address, num_cpus)


def _search(config: "SweepConfig", address: str | None, num_cpus: int | None) -> None:
    from raylens.extras import require_extra

    require_extra("train", "raylens sweep")  # before what it imports takes seconds
    from raylens.cluster import session
    from raylens.storage import open_store
    from raylens.tune import BEST, GUESSED_STEPS, REPORT, sweep, verdict

    config.check(GUESSED_STEPS)  # before Ray starts
    from raylens.workloads.pages.sweep_terminal import SweepTerminal

    with SweepTerminal(config) as terminal, session(address, num_cpus, say=terminal.say):
        result = sweep(config, say=terminal.say, on_change=terminal.tell)
        judgement = verdict(result.record.trials, config.metric, config.goal)
        if judgement is not None:
            terminal.say(judgement.text)
    place = open_store(result.uri).describe()
    typer.echo(f"report: {place}/{REPORT}")
    if result.best is None:
        typer.echo(f"no trial has a value of {config.metric}: `raylens sweep show {place}` says why")
        raise typer.Exit(1)
    typer.echo(f"best: {result.best.best_trial.name}, {config.metric} {result.best.mean:.6g}; {place}/{BEST}")


@app.command("list")
def list_sweeps(
    storage: Annotated[str, typer.Argument(help="URI of the folder that holds the sweeps, e.g. sweeps.")],
    as_json: AsJson = False,
) -> None:
    """List the sweeps of a storage, with the best value of each."""
    from raylens.workloads.pages.sweeps import list_page

    print_page(list_page(storage, as_json))


@app.command("show")
def show(
    uri: Uri,
    out: Annotated[Path | None, typer.Option(help="File for the page of plots, up to now.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show a sweep's trials, the best first. When it has ended, its folder has a page of plots, report.html."""
    from raylens.storage import open_store
    from raylens.tune import read_config, read_sweep
    from raylens.tune.report import render_report
    from raylens.workloads.pages.sweeps import show_page

    if out is not None:
        check_file(out, "--out")
    print_page(show_page(uri, as_json))
    if out is not None:
        store = open_store(uri)
        out.write_text(render_report(read_config(store), read_sweep(store)), encoding="utf-8")
        typer.echo(f"plots: {out}", err=True)


@app.command("compare")
def compare(
    uris: Annotated[list[str], typer.Argument(metavar="URI URI...", help="URIs of the folders of two sweeps or more.")],
    as_json: AsJson = False,
) -> None:
    """Compare what sweeps used and their best trials. Trials are runs: `raylens runs compare` draws their curves."""
    from raylens.workloads.pages.sweeps import compare_page

    print_page(compare_page(uris, as_json))


@app.command("stop")
def stop(uri: Uri) -> None:
    """Ask a sweep to end, wherever it runs. Its trials stay, and it still writes its report and best.yaml."""
    from raylens.workloads.pages.sweeps import request_stop

    typer.echo(request_stop(uri))


@app.command("promote")
def promote(
    uri: Uri,
    model: Annotated[
        str, typer.Argument(metavar="NAME[@ALIAS]", help="Name of the model, and an alias to point at it.")
    ],
) -> None:
    """Register the best trial's model with its lineage, and point an alias at it.

    Example:

        raylens sweep promote quickstart/sweeps/digits digits@staging
    """
    from raylens.storage import open_store
    from raylens.tune import promote as register
    from raylens.tune import read_config, read_sweep

    name, at, alias = model.partition("@")
    if not name or (at and not alias):
        raise ConfigError(f"{model!r}: write NAME or NAME@ALIAS, e.g. digits@staging")
    store = open_store(uri)
    config = read_config(store)
    version = register(store, config, read_sweep(store), name, alias or None, _say)
    typer.echo(f"{version}{f', {name}@{alias}' if alias else ''} in {open_store(config.run.registry_uri).describe()}")


def _say(text: str) -> None:
    typer.echo(with_severity(text), err=True)
