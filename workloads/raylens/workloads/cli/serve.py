"""``raylens serve``."""

import threading
from typing import Annotated

import typer

from raylens.workloads.cli.options import Address, NumCpus, Registry

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("serve")(serve)


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL[@VERSION|@ALIAS]", help="A registered model.")],
    registry: Registry = "registry",
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 opens it to the network, without a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    replicas: Annotated[int, typer.Option(min=1, help="Copies of the encoder.")] = 1,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Serve a registered model as an embedding API, until Ctrl-C.

    Example:

        raylens serve digits --registry quickstart/registry
    """
    from raylens.cluster import session
    from raylens.serve import serve_model
    from raylens.workloads.terminal import Terminal

    with Terminal() as terminal, session(address, num_cpus):
        with serve_model(registry=registry, reference=model, host=host, port=port, replicas=replicas) as service:
            terminal.say(f"ready: {service.url}  (API description: {service.url}/docs; stop with Ctrl-C)")
            typer.echo(_how_to_call(service.url), err=True)  # not through rich, which would break the lines
            _until_interrupted()
        terminal.say("stopped")


def _how_to_call(url: str) -> str:
    return f"""
  curl {url}/v1/models
  curl {url}/v1/embeddings -H 'content-type: application/json' -d '{{"input": ["a handwritten seven"]}}'
  curl {url}/v1/embeddings -H 'content-type: application/json' \\
       -d "{{\\"input\\": [{{\\"image\\": \\"data:image/png;base64,$(base64 -w0 a.png)\\"}}]}}"
  curl {url}/v1/classify -H 'content-type: application/json' \\
       -d "{{\\"classes\\": [\\"one\\", \\"seven\\"], \\"images\\": [\\"data:image/png;base64,$(base64 -w0 a.png)\\"]}}"
"""


def _until_interrupted() -> None:
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
