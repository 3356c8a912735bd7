"""``raylens clusters``: profiles of clusters that jobs are submitted to."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from raylens.workloads.cli.runs import AsJson, print_page

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Clusters by name: address, token, and what jobs begin with. Kept in ~/.config/raylens/clusters.yaml.",
    epilog="RAYLENS_CLUSTERS names another file. A profile holds where a token is, never the token.",
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the profile.")]


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
    """Add a cluster, or change it: what is given replaces the whole profile.

    Examples:

        raylens clusters add team https://ray.example.com --token-file ~/.config/raylens/team.token --use

        raylens clusters add lab http://127.0.0.1:8265 --token-env LAB_TOKEN --code image --secret AWS_SECRET_ACCESS_KEY
    """
    from raylens.cluster.contexts import Profile, update_profiles
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
    profile = validated(Profile, tree)
    file = update_profiles(
        lambda profiles: (
            profiles.replaced(name, profile).using(name)
            if use or not profiles.clusters
            else profiles.replaced(name, profile)
        )
    )
    typer.echo(f"{name} is in {file}", err=True)
    if profile.address.startswith("http://") and (token_file or token_env) and not _loopback(profile.address):
        typer.echo("http:// sends the token readable to whoever listens on the way: prefer https://", err=True)


@app.command("list")
def list_clusters(as_json: AsJson = False) -> None:
    """List the clusters; the default has a star."""
    from rich.table import Table

    from raylens.cluster.contexts import read_profiles

    profiles = read_profiles()
    if as_json:
        typer.echo(json.dumps(profiles.model_dump(mode="json")))
        return
    table = Table("", "name", "address", "token", "code")
    for name, profile in sorted(profiles.clusters.items()):
        token = profile.token_source if profile.token_file or profile.token_env else ""
        table.add_row("*" if name == profiles.default else "", name, profile.address, token, profile.code)
    print_page([table] if profiles.clusters else [profiles.known])


@app.command("show")
def show(name: Annotated[str | None, typer.Argument(help="The default without it.")] = None) -> None:
    """Show a profile as the file has it."""
    from raylens.cluster.contexts import profile_of
    from raylens.config import dump_yaml

    known, profile = profile_of(name)
    typer.echo(f"# {known}\n{dump_yaml(profile)}", nl=False)


@app.command("use")
def use_cluster(name: Name) -> None:
    """Make a cluster the default of `raylens jobs`."""
    from raylens.cluster.contexts import update_profiles

    update_profiles(lambda profiles: profiles.using(name))
    typer.echo(f"default: {name}", err=True)


@app.command("remove")
def remove(name: Name) -> None:
    """Forget a cluster. Nothing happens to it, and its token's file stays."""
    from raylens.cluster.contexts import update_profiles

    update_profiles(lambda profiles: profiles.without(name))
    typer.echo(f"removed: {name}", err=True)


def _absolute(file: Path | None) -> str | None:
    """Commands are given from other folders later."""
    return None if file is None else str(file.expanduser().absolute())


def _loopback(address: str) -> bool:
    return address.removeprefix("http://").startswith(("127.", "localhost", "[::1]"))
