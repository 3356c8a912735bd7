"""A command line that is to run on a cluster, checked here first, and made to work there."""

import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from raylens.config import DataConfig, Node, dump_yaml
from raylens.errors import ConfigError
from raylens.workloads.command_tree import leaf_context

__all__ = ["FILES", "JobCommand", "job_command"]

ROOT = "raylens"
NOTHING = "what of it? --help lists its commands"
FILES = "job-files:/"
"""Stands in an argument for the folder of the files that travel with a job."""
HERE_ONLY = ("jobs", "contexts", "cluster")
"""Commands that are about clusters, not for them."""
YAML = (".yaml", ".yml")


@dataclass(frozen=True)
class JobCommand:
    """A command as it is run in a job."""

    words: tuple[str, ...]
    """The command line after the word ``raylens``."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Contents of the files that the job finds in `FILES`, by name."""
    config_hash: str | None = None
    """SHA-256 of the complete configuration, where the command has one."""

    @property
    def name(self) -> str:
        """For an id: what is run, and of what."""
        plain = [word for word in self.words if not word.startswith("-")][:2]
        name = "-".join(Path(word.removeprefix(FILES)).stem for word in plain)
        return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:60] or "job"


def job_command(root: TyperGroup, words: Sequence[str], variables: Mapping[str, str]) -> JobCommand:
    """Check a command line as if it were run, without running it.

    YAML files that it names travel with it: a run's or a sweep's as the complete configuration that it comes to.

    Args:
        root: the command ``raylens``, with all its commands.
        words: after ``raylens``.
        variables: that the job will have; options take their values from these, not from this machine's.

    Raises:
        ConfigError: what the command itself would say; or it only makes sense on this machine.
        typer.Exit: the command line asks for help, which has been printed.
    """
    command, params = _parsed(root, words, variables)
    config = _config(command, params)
    text = None if config is None else dump_yaml(config)
    staged = _Staged()
    source = str(params.get("source", "")) if text is not None else ""
    travelling = tuple(staged.word(word, source, text) for word in words)
    return JobCommand(travelling, staged.files, None if text is None else hashlib.sha256(text.encode()).hexdigest())


def _parsed(root: TyperGroup, words: Sequence[str], variables: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return the name of the command that would run, as ``serve run``, and its parameters."""
    if not words:
        raise ConfigError("no command: write it after --, e.g. `raylens jobs submit -- train digits`")
    if words[0] in HERE_ONLY:
        raise ConfigError(f"`raylens {words[0]}` is about clusters: run it here, not in a job")
    try:
        context = leaf_context(root, ROOT, words)
    except typer.TyperException as error:
        message = " ".join(error.format_message().split())
        raise ConfigError(f"{ROOT} {shlex.join(words)}: {message or NOTHING}") from None
    return context.command_path.removeprefix(f"{ROOT} "), _parameters(context, variables)


def _parameters(context: Any, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a command's parameters; an option behind which a variable stands has the job's value of it."""
    values = dict(context.params)
    for option in context.command.params:
        if option.envvar and context.get_parameter_source(option.name).name != "COMMANDLINE":
            value = variables.get(option.envvar) or option.get_default(context)
            values[option.name] = option.process_value(context, value)
    return values


def _config(command: str, params: Mapping[str, Any]) -> Node | None:
    """The complete configuration of a command that has one, checked; and that it can work on a cluster."""
    for option in ("address", "num_cpus"):
        if params.get(option) is not None:
            raise ConfigError(
                f"--{option.replace('_', '-')} says which cluster a command starts or joins: a job is on one"
            )
    check = _CHECKS.get(command)
    return None if check is None else check(params)


def _train(params: Mapping[str, Any]) -> Node:
    from raylens.workloads.recipes import configure

    config = configure(params["source"], params["changes"] or ())
    _shared("storage", config.storage)
    _shared("registry", config.registry_uri)
    _shared_data("data.train", config.data)
    return config


def _sweep(params: Mapping[str, Any]) -> Node:
    from raylens.tune import GUESSED_STEPS
    from raylens.workloads.sweeps import configure_sweep

    config = configure_sweep(params["source"], params["changes"] or ())
    config.check(GUESSED_STEPS)
    _shared("storage", config.storage)
    _shared_data("run.data.train", config.run.data)
    return config


def _quickstart(params: Mapping[str, Any]) -> Node:
    from raylens.storage import open_store
    from raylens.workloads.quickstart.quickstart import quickstart_config

    _shared("--storage", params["storage"], option="--storage s3://bucket/prefix")
    return quickstart_config(open_store(params["storage"]), params["changes"] or ())


def _serve(params: Mapping[str, Any]) -> Node:
    from raylens.workloads.service_config import service_config

    names = ("registry", "host", "port", "replicas", "keys")
    options = {name: params[name] for name in names}
    config = service_config(params["config"], params["models"], params["changes"], **options)
    _shared("registry", config.registry, option="--registry s3://bucket/prefix")
    return config


_CHECKS = {"train": _train, "sweep run": _sweep, "quickstart": _quickstart, "serve run": _serve}


def _shared_data(key: str, data: DataConfig) -> None:
    for number, source in enumerate(data.train):
        _shared(f"{key}.{number}.uri" if len(data.train) > 1 else key, source.uri)


def _shared(key: str, place: str, option: str | None = None) -> None:
    """Refuse a folder that is only this machine's; an absolute one may be a volume that all nodes have."""
    if "://" in place or Path(place).is_absolute():
        return
    instead = option or f"--set {key}=s3://bucket/prefix"
    raise ConfigError(
        f"{key} = {place!r} is a folder beside this command, which the nodes of a cluster do not have: {instead}, or "
        "the absolute path of a volume that every node has"
    )


class _Staged:
    """Files that go with a command, each under one name."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def word(self, word: str, source: str, config: str | None) -> str:
        """An argument as it works on a cluster."""
        option, equals, path = word.partition("=") if word.startswith("--") else ("", "", word)
        if not path or "://" in path:
            return word
        place = Path(path)
        if path.endswith(YAML) and place.is_file():
            data = config.encode() if config is not None and path == source else place.read_bytes()
            return f"{option}{equals}{FILES}{self._name(place, data)}"
        if "/" in path and not place.is_absolute() and place.exists():
            raise ConfigError(
                f"{path} is on this machine, where a job does not see it: put it into object storage, or onto a volume "
                "that every node has, and name it by its URI or absolute path"
            )
        return word

    def _name(self, place: Path, data: bytes) -> str:
        name = place.name
        while self.files.get(name, data) != data:
            name = f"other-{name}"
        self.files[name] = data
        return name
