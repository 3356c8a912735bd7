"""The commands ``raylens contexts``, about the contexts of clusters to which jobs are submitted."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Manage contexts: a cluster's address, its token and the defaults of its jobs, under a name.",
    epilog="Contexts are kept in ~/.config/raylens/contexts.yaml, or in the file that RAYLENS_CONTEXTS names. "
    "A context names the place of a token, never the token itself.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the context.")]


@app.command("add")
def add(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Address of the dashboard: http://HOST:8265.")],
    token_file: Annotated[Path | None, typer.Option(help="File that holds the token.")] = None,
    token_env: Annotated[
        str | None, typer.Option(help="Environment variable of this machine that holds the token.")
    ] = None,
    ca_file: Annotated[Path | None, typer.Option(help="File of certificates to trust for https.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Whether to verify the certificate of an https address.")
    ] = True,
    code: Annotated[
        str, typer.Option(help="Code that jobs run: wheel (of your checkout) or image (the cluster's).")
    ] = "wheel",
    extras: Annotated[
        list[str] | None, typer.Option("--extra", help="Extra of raylens that jobs install. Repeatable.")
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Environment variable of jobs, not a secret. Repeatable."),
    ] = None,
    secrets: Annotated[
        list[str] | None, typer.Option("--secret", help="Secret of jobs, see `raylens jobs submit --help`. Repeatable.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs that a job's driver reserves.")] = 0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that a job's driver reserves.")] = 0,
    use: Annotated[bool, typer.Option("--use", help="Make the context the default.")] = False,
) -> None:
    """Add a context, or replace the one that has its name.

    Examples:

        raylens contexts add team https://ray.example.com --token-file ~/.config/raylens/team.token --use

        raylens contexts add lab http://127.0.0.1:8265 --token-env LAB_TOKEN --code image --secret AWS_SECRET_ACCESS_KEY
    """
    from raylens.cluster import ClusterContext, check_variables, update_contexts
    from raylens.config import validated
    from raylens.workloads.submit.options import pairs

    variables = pairs(env, "--env")
    check_variables(variables)
    tree: dict[str, Any] = {
        "address": address,
        "token_file": _absolute(token_file),
        "token_env": token_env,
        "ca_file": _absolute(ca_file),
        "verify": verify,
        "code": code,
        "extras": extras or [],
        "env": variables,
        "secrets": secrets or [],
        "resources": {"cpus": cpus, "gpus": gpus},
    }
    context = validated(ClusterContext, tree)
    file = update_contexts(
        lambda contexts: (
            contexts.replaced(name, context).using(name)
            if use or not contexts.contexts
            else contexts.replaced(name, context)
        )
    )
    typer.echo(f"{name} is in {file}", err=True)
    if context.address.startswith("http://") and (token_file or token_env) and not _loopback(context.address):
        typer.echo("http:// sends the token unencrypted: prefer https://", err=True)


@app.command("list")
def list_contexts(as_json: AsJson = False) -> None:
    """List the contexts; a star marks the default."""
    from rich.table import Table

    from raylens.cluster import read_contexts

    contexts = read_contexts()
    if as_json:
        typer.echo(json.dumps(contexts.model_dump(mode="json")))
        return
    table = Table("", "name", "address", "token", "code")
    for name, context in sorted(contexts.contexts.items()):
        token = context.token_source if context.token_file or context.token_env else ""
        table.add_row("*" if name == contexts.default else "", name, context.address, token, context.code)
    print_page([table] if contexts.contexts else [contexts.known])


@app.command("show")
def show(
    name: Annotated[str | None, typer.Argument(help="Name of the context; by default the default one.")] = None,
) -> None:
    """Show a context in the form of the file."""
    from raylens.cluster import context_of
    from raylens.config import dump_yaml

    known, context = context_of(name)
    typer.echo(f"# {known}\n{dump_yaml(context)}", nl=False)


@app.command("use")
def use_context(name: Name) -> None:
    """Make a context the default of `raylens jobs`."""
    from raylens.cluster import update_contexts

    update_contexts(lambda contexts: contexts.using(name))
    typer.echo(f"default: {name}", err=True)


@app.command("remove")
def remove(name: Name) -> None:
    """Remove a context. The cluster itself and the file of its token stay."""
    from raylens.cluster import update_contexts

    update_contexts(lambda contexts: contexts.without(name))
    typer.echo(f"removed: {name}", err=True)


def _absolute(file: Path | None) -> str | None:
    """Return an absolute path, because later commands may run in other folders."""
    return None if file is None else str(file.expanduser().absolute())


def _loopback(address: str) -> bool:
    return address.removeprefix("http://").startswith(("127.", "localhost", "[::1]"))
