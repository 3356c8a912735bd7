"""``raylens contexts``: contexts of clusters that jobs are submitted to."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Clusters by name: address, token, and what jobs begin with. Kept in ~/.config/raylens/contexts.yaml.",
    epilog="RAYLENS_CONTEXTS names another file. A context holds where a token is, never the token.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the context.")]


@app.command("add")
def add(
    name: Name,
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="Of the dashboard: http://HOST:8265.")],
    token_file: Annotated[Path | None, typer.Option(help="File with the token.")] = None,
    token_env: Annotated[str | None, typer.Option(help="Variable of this machine with the token.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="Certificates to trust for https.")] = None,
    verify: Annotated[bool, typer.Option("--verify/--no-verify", help="Whether https proves who answers.")] = True,
    code: Annotated[str, typer.Option(help="What jobs run: wheel (of the checkout) or image.")] = "wheel",
    extras: Annotated[list[str] | None, typer.Option("--extra", help="Extra of raylens for jobs. Repeatable.")] = None,
    env: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Variable of jobs, not secret. Repeatable.")
    ] = None,
    secrets: Annotated[
        list[str] | None, typer.Option("--secret", help="See `raylens jobs submit --help`. Repeatable.")
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="That a job's driver reserves.")] = 0,
    gpus: Annotated[float, typer.Option(min=0, help="That a job's driver reserves.")] = 0,
    use: Annotated[bool, typer.Option("--use", help="Make it the default.")] = False,
) -> None:
    """Add a cluster, or change it: what is given replaces the whole context.

    Examples:

        raylens contexts add team https://ray.example.com --token-file ~/.config/raylens/team.token --use

        raylens contexts add lab http://127.0.0.1:8265 --token-env LAB_TOKEN --code image --secret AWS_SECRET_ACCESS_KEY
    """
    from raylens.cluster.contexts import ClusterContext, update_contexts
    from raylens.cluster.secret_scan import check_variables
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
        typer.echo("http:// sends the token readable to whoever listens on the way: prefer https://", err=True)


@app.command("list")
def list_contexts(as_json: AsJson = False) -> None:
    """List the clusters; the default has a star."""
    from rich.table import Table

    from raylens.cluster.contexts import read_contexts

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
def show(name: Annotated[str | None, typer.Argument(help="The default without it.")] = None) -> None:
    """Show a context as the file has it."""
    from raylens.cluster.contexts import context_of
    from raylens.config import dump_yaml

    known, context = context_of(name)
    typer.echo(f"# {known}\n{dump_yaml(context)}", nl=False)


@app.command("use")
def use_context(name: Name) -> None:
    """Make a cluster the default of `raylens jobs`."""
    from raylens.cluster.contexts import update_contexts

    update_contexts(lambda contexts: contexts.using(name))
    typer.echo(f"default: {name}", err=True)


@app.command("remove")
def remove(name: Name) -> None:
    """Forget a cluster. Nothing happens to it, and its token's file stays."""
    from raylens.cluster.contexts import update_contexts

    update_contexts(lambda contexts: contexts.without(name))
    typer.echo(f"removed: {name}", err=True)


def _absolute(file: Path | None) -> str | None:
    """Commands are given from other folders later."""
    return None if file is None else str(file.expanduser().absolute())


def _loopback(address: str) -> bool:
    return address.removeprefix("http://").startswith(("127.", "localhost", "[::1]"))
