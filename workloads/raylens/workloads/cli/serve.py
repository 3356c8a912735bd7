"""The commands ``raylens serve run``, ``build``, ``deploy``, ``undeploy`` and ``key``."""

import json
import threading
from pathlib import Path
from typing import Annotated, Any

import typer

from raylens.errors import ConfigError
from raylens.workloads.cli.options import Address, ClusterName, NumCpus, ServiceSet, check_file
from raylens.workloads.command_tree import RUN, RunGroup

__all__ = ["app"]

PRELOADED = ("pandas", "fastapi")
"""Modules that take most of Ray Serve's import time, imported while the cluster starts."""

app = typer.Typer(
    cls=RunGroup,
    no_args_is_help=True,
    help="Serve registered models as an embedding API: `raylens serve MODEL[@ALIAS]`, until Ctrl-C.",
    epilog="`raylens serve run --help` lists the options. Use `serve run NAME` if a model is named like a command.",
)

Models = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="MODEL[@VERSION|@ALIAS]...", help="Registered models; the service follows an alias when it moves."
    ),
]
Config = Annotated[
    Path | None, typer.Option("--config", help="YAML file with the service's settings; options override them.")
]
RegistryUri = Annotated[
    str | None,
    typer.Option(envvar="RAYLENS_REGISTRY", help="URI of the model registry: a folder or s3://bucket/prefix."),
]
Host = Annotated[str | None, typer.Option(help="Address to listen on; 127.0.0.1 by default, 0.0.0.0 for all.")]
Port = Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on; 8000 by default.")]
Replicas = Annotated[
    str | None,
    typer.Option(metavar="N|MIN:MAX", help="Replicas of each tower (text and image) of each model; 1 by default."),
]
Keys = Annotated[str | None, typer.Option(help="File or URI of API keys; see `raylens serve key`.")]


@app.command(RUN)
def run(
    models: Models = None,
    config: Config = None,
    registry: RegistryUri = None,
    host: Host = None,
    port: Port = None,
    replicas: Replicas = None,
    keys: Keys = None,
    changes: ServiceSet = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Serve registered models as an embedding API, until Ctrl-C.

    Examples:

        raylens serve digits --registry quickstart/registry

        raylens serve pets@prod plants@prod --registry s3://models --replicas 1:4 --keys keys.json --host 0.0.0.0

        raylens serve --config serve.yaml --set limits.max_items=256

        raylens serve digits --registry quickstart/registry --set models.0.image.cpus=4
    """
    from raylens.workloads.lines import Lines

    lines = Lines()
    from raylens.serve.deploy import haproxy_ports
    from raylens.serve.deploy.environment import environment
    from raylens.workloads.service_config import logical_cpus, service_config

    settings = service_config(
        config, models, changes, registry=registry, host=host, port=port, replicas=replicas, keys=keys
    )
    from raylens.cluster import session

    cpus = num_cpus or (None if address else logical_cpus(settings))
    variables = environment(settings.proxy) | haproxy_ports()
    with session(address, cpus, variables, say=lines.say, meanwhile=PRELOADED) as inherited:
        lines.say("Ray is running")
        from raylens.serve import serve_service

        with serve_service(settings, inherited=inherited, on_progress=lines.say) as service:
            served = ", ".join(str(version) for version in service.versions)
            lines.say(f"ready: {service.url} serves {served}  (try it at {service.url}/docs; stop with Ctrl-C)")
            if not settings.security.keys and settings.host not in ("127.0.0.1", "::1", "localhost"):
                lines.say("everybody who reaches this address may call: --keys FILE requires an API key")
            typer.echo(_how_to_call(service.url, keyed=settings.security.keys is not None), err=True)
            _until_interrupted()
            lines.say("stopping after the requests that have begun")
        lines.say("stopped")


@app.command("build")
def build(
    models: Models = None,
    config: Config = None,
    registry: RegistryUri = None,
    host: Host = None,
    port: Port = None,
    replicas: Replicas = None,
    keys: Keys = None,
    changes: ServiceSet = None,
    out: Annotated[Path | None, typer.Option(help="File to write; standard output by default.")] = None,
) -> None:
    """Write the declarative config for a running cluster: for `serve deploy`, or a RayService of KubeRay.

    Example:

        raylens serve build pets@prod --registry s3://models --replicas 2:8 --host 0.0.0.0 --out service.yaml
    """
    from raylens.serve.deploy import serve_config_yaml
    from raylens.workloads.service_config import service_config

    if out is not None:
        check_file(out, "--out")
    text = serve_config_yaml(
        service_config(config, models, changes, registry=registry, host=host, port=port, replicas=replicas, keys=keys)
    )
    if out is None:
        typer.echo(text, nl=False)
    else:
        out.write_text(text)


@app.command("deploy")
def deploy(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", help="Declarative config, as `raylens serve build` writes it.")
    ],
    cluster: ClusterName = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds within which the service must be ready.")] = 600,
) -> None:
    """Deploy a service on a running cluster and return when it is ready. Every node needs raylens in its image.

    Example:

        raylens serve build pets@prod --registry s3://models --out service.yaml

        raylens serve deploy service.yaml --cluster team
    """
    from raylens.cluster import context_of
    from raylens.cluster.jobs import Jobs
    from raylens.workloads.submit.deploy_service import deploy as deploy_service

    with Jobs(*context_of(cluster)) as jobs:
        url = deploy_service(jobs, file, timeout, lambda text: typer.echo(text, err=True))
    typer.echo(url)


@app.command("undeploy")
def undeploy(cluster: ClusterName = None) -> None:
    """Remove all that a cluster serves."""
    from raylens.cluster import context_of
    from raylens.cluster.jobs import Jobs
    from raylens.workloads.submit.deploy_service import undeploy as remove_services

    with Jobs(*context_of(cluster)) as jobs:
        remove_services(jobs)


@app.command("key")
def key(
    name: Annotated[str, typer.Argument(help="Name of the key's owner, for logs, metrics and rate limits.")],
    file: Annotated[Path, typer.Option("--keys", help="File of keys to add it to; created if missing.")],
) -> None:
    """Make an API key, which is shown once and stored as a hash. A running service accepts it within seconds.

    Example:

        raylens serve key search-team --keys keys.json
    """
    from raylens.cluster import replace_private
    from raylens.serve.gateway import new_key

    check_file(file, "--keys")
    secret, entry = new_key(name)
    tree: dict[str, Any] = {"keys": []}
    if file.exists():
        try:
            tree = json.loads(file.read_text())
            tree["keys"].append(entry.model_dump(mode="json", exclude_none=True))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ConfigError(f"--keys {file}: is no file of keys; name another one, or repair it") from None
    else:
        tree["keys"].append(entry.model_dump(mode="json", exclude_none=True))
    # Atomically, so that a service that reads it meanwhile sees the old file or the new one.
    replace_private(file, json.dumps(tree, indent=2) + "\n")
    typer.echo(secret)
    typer.echo(f"{name} may call with 'Authorization: Bearer {secret[:6]}...'; it is shown only now", err=True)


def _how_to_call(url: str, *, keyed: bool) -> str:
    key = " -H 'authorization: Bearer rl-...'" if keyed else ""
    return f"""
  curl {url}/v1/models{key}
  curl {url}/v1/embeddings{key} -H 'content-type: application/json' -d '{{"input": ["a handwritten seven"]}}'
  curl {url}/v1/embeddings{key} -H 'content-type: image/png' --data-binary @a.png
  curl {url}/v1/embeddings{key} -F text='a handwritten seven' -F image=@a.png
  curl {url}/v1/classify{key} -H 'content-type: application/json' \\
       -d "{{\\"classes\\": [\\"one\\", \\"seven\\"], \\"images\\": [\\"data:image/png;base64,$(base64 -w0 a.png)\\"]}}"
"""


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
