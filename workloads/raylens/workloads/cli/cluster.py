"""The commands ``raylens cluster``: describe a cluster once, render its files, or run one on this machine."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from raylens.errors import ConfigError
from raylens.workloads.cli import cluster_local
from raylens.workloads.cli.options import check_file, root_command
from raylens.workloads.cli.runs import print_page

if TYPE_CHECKING:
    from raylens.cluster.description import ClusterSpec
    from raylens.cluster.kuberay import Kind, Manifest

__all__ = ["app"]

app = typer.Typer(
    no_args_is_help=True,
    help="Describe a cluster once, and render manifests for KubeRay or the file for `ray up` from the description. "
    "`raylens cluster local` runs a cluster on this machine.",
    epilog="Begin with the example that `raylens cluster init cluster.yaml` writes.",
)
rendering = typer.Typer(no_args_is_help=True, help="Render the files that create a described cluster.")
app.add_typer(rendering, name="render")
cluster_local.add_to(app)

Description = Annotated[Path, typer.Argument(metavar="CLUSTER.yaml", help="File of the cluster's description.")]


@app.command("init")
def init(
    file: Annotated[
        Path, typer.Argument(metavar="CLUSTER.yaml", help="The file to write; an existing one is not overwritten.")
    ] = Path("cluster.yaml"),
) -> None:
    """Write an example of a description, in which comments explain every key.

    Example:

        raylens cluster init pets.yaml && raylens cluster check pets.yaml
    """
    from importlib.resources import files

    example = files("raylens.cluster.description").joinpath("example.yaml").read_text(encoding="utf-8")
    with _writing("CLUSTER.yaml", file):
        check_file(file, "CLUSTER.yaml")
        try:
            with file.open("x", encoding="utf-8") as sink:
                sink.write(example)
        except FileExistsError:
            raise ConfigError(f"{file} exists and is not overwritten: name another file, or remove it") from None
    typer.echo(f"{file}: edit it, then `raylens cluster check {file}`", err=True)


@app.command("check")
def check(file: Description) -> None:
    """Check a description, show its groups and images, and say whether it suffices for KubeRay and `ray up`.

    Example:

        raylens cluster check pets.yaml
    """
    from raylens.cluster.description import load_spec
    from raylens.workloads.pages.cluster import check_page

    print_page(check_page(load_spec(file)))


@rendering.command("kuberay", context_settings={"ignore_unknown_options": False})
def kuberay(
    context: typer.Context,
    file: Description,
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- COMMAND...]", help="The command of a job, after --: any command of raylens."),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="cluster|job|service",
            help="What to render. By default the other options decide, and --out adds the cluster.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the object; by default the cluster's, with -job or -serve.")
    ] = None,
    serve_config: Annotated[
        Path | None, typer.Option(help="Configuration of the service, as for `raylens serve --config`.")
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--open", help="Serve everybody, without API keys.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the files; by default they go to standard output.")
    ] = None,
) -> None:
    """Write manifests for KubeRay 1.7: the object, its network policies, disruption budgets and service account.

    Manifests name Secrets but hold none. Applying a file twice changes nothing; check it first with
    `kubectl apply --dry-run=server -f FILE`.

    Examples:

        raylens cluster render kuberay pets.yaml | kubectl apply -f -

        raylens cluster render kuberay pets.yaml --kind job --name pets-1 -- train mine.yaml --set storage=s3://runs

        raylens cluster render kuberay pets.yaml --kind service --serve-config serve.yaml

        raylens cluster render kuberay pets.yaml --serve-config serve.yaml --out manifests -- train mine.yaml
    """
    from raylens.cluster.description import load_spec
    from raylens.cluster.kuberay import render, to_yaml
    from raylens.workloads.submit.kuberay_service import kuberay_service

    spec = load_spec(file)
    kinds = _kinds(kind, bool(command), serve_config, everything=out is not None)
    if name is not None and len(kinds) > 1:
        raise ConfigError(f"--name {name} names one object: choose it by --kind {' or '.join(kinds)}")
    if open_to_all and "service" not in kinds:
        raise ConfigError("--open is for a service: name its configuration with --serve-config, or leave --open out")
    words, files = _job(root_command(context), spec, command) if "job" in kinds and command else ([], {})
    rendered: dict[Kind, list[Manifest]] = {}
    for each in kinds:
        serving = (
            kuberay_service(spec, serve_config, open_to_all=open_to_all) if each == "service" and serve_config else None
        )
        rendered[each] = render(spec, each, name=name, command=words, files=files, serving=serving)
    if out is None:
        typer.echo(to_yaml(manifest for manifests in rendered.values() for manifest in manifests), nl=False)
        return
    texts = {f"{each}.yaml": to_yaml(manifests) for each, manifests in rendered.items()}
    read = [file, *([serve_config] if serve_config else []), *map(Path, command or [])]
    with _writing("--out", out):
        _spare([out / name for name in texts], read)
        _write(out, texts)


@rendering.command("ray-up")
def ray_up(
    file: Description,
    out: Annotated[Path | None, typer.Option(help="The file to write; by default it goes to standard output.")] = None,
) -> None:
    """Write the file for `ray up`, for machines of AWS, Google Cloud, or your own (`launcher` in the description).

    Example:

        raylens cluster render ray-up pets.yaml --out pets-up.yaml && RAY_AUTH_MODE=token ray up pets-up.yaml
    """
    from raylens.cluster.description import load_spec
    from raylens.cluster.ray_up import render, to_yaml

    if out is not None:
        with _writing("--out", out):
            check_file(out, "--out")
            _spare([out], [file])
    spec = load_spec(file)
    text = to_yaml(render(spec), spec)
    if out is None:
        typer.echo(text, nl=False)
    else:
        with _writing("--out", out):
            out.write_text(text, encoding="utf-8")
        typer.echo(str(out), err=True)


def _kinds(kind: str | None, command: bool, serve_config: Path | None, *, everything: bool) -> list["Kind"]:
    """Return the kinds to render: the named one, or those whose options are set; with a folder also the cluster."""
    from raylens.cluster.kuberay import KINDS

    requested = {"cluster": everything, "job": command, "service": serve_config is not None}
    if kind is None:
        kinds = [each for each in KINDS if requested[each]] or ["cluster"]
        if len(kinds) > 1 and not everything:
            raise ConfigError(
                "a command and --serve-config: choose --kind job or --kind service, or --out FOLDER for both"
            )
        return kinds
    if kind not in KINDS:
        raise ConfigError(f"--kind {kind}: it must be one of {', '.join(KINDS)}")
    for other, thing in (("job", "a command"), ("service", "--serve-config")):
        if requested[other] and kind != other:
            raise ConfigError(f"--kind {kind}: {thing} is for --kind {other}; leave it out")
    return [each for each in KINDS if each == kind]


def _job(root: TyperGroup, spec: "ClusterSpec", command: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the command of a job, which may begin with ``raylens``, and the files that it names.

    The command is checked as if it were run, and searched for secrets of this machine.
    """
    from raylens.cluster import check_text
    from raylens.cluster.kuberay import JOB_FILES
    from raylens.workloads.submit.command import FILES, job_command

    check_text("the command", command, os.environ)
    checked = job_command(root, command[command[:1] == ["raylens"] :], spec.env | spec.head.env)
    texts = {name: data.decode() for name, data in checked.files.items()}
    check_text("a file of the command", texts.values(), os.environ)
    words = [word.replace(FILES, f"{JOB_FILES}/") for word in checked.words]
    return ["raylens", *words], texts


def _write(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
        typer.echo(str(folder / name), err=True)


@contextmanager
def _writing(option: str, place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{option} {place} cannot be written: {error.strerror}; name another path") from None


def _spare(written: Iterable[Path], read: Sequence[Path]) -> None:
    """Refuse to overwrite what was read: the manifest has the same default name as `raylens cluster init`'s file."""
    for place in written:
        for source in read:
            if place.exists() and source.exists() and place.samefile(source):
                raise ConfigError(f"--out would overwrite {source}, from which it is rendered: name another path")
