"""Rendering all manifests of a cluster, a job or a service, in the order in which they are applied."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from raylens.cluster.description import ClusterSpec, GroupSpec
from raylens.cluster.kuberay.guards import disruption_budgets, job_files, network_policies, service_account
from raylens.cluster.kuberay.names import Manifest, Rendering, Serving
from raylens.cluster.kuberay.workload import ray_cluster, ray_job, ray_service
from raylens.cluster.plain_yaml import PlainDumper
from raylens.config.placement import Group
from raylens.errors import ConfigError

__all__ = ["KINDS", "Kind", "render", "to_yaml"]

Kind = Literal["cluster", "job", "service"]
KINDS: dict[Kind, tuple[str, tuple[Group, ...]]] = {
    "cluster": ("", ("decode", "train", "serve")),
    "job": ("-job", ("decode", "train")),
    "service": ("-serve", ("serve",)),
}
"""For each kind of object, the suffix of its name, and the groups that it has if they are described."""
LONGEST_NAME = 47
LARGEST_FILES = 900_000
OTHER_YAML = re.compile(
    r"[yYnN]|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?0[xXoObB][0-9a-fA-F]+|[0-9]{4}(-[0-9]{1,2}){2}.*"
)
"""Matches text that kubectl reads as a switch, a number or a time, but PyYAML as text: y, 1e-3, 0o17, 2026-1-2."""


@dataclass(frozen=True)
class _Literal:
    """Text that is written line by line, as a literal block."""

    text: str


def render(
    spec: ClusterSpec,
    kind: Kind,
    *,
    name: str | None = None,
    command: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
    serving: Serving | None = None,
) -> list[Manifest]:
    """Return all manifests of one object of KubeRay 1.7.

    Args:
        spec: the description of the cluster.
        kind: a cluster that stays, a job with its own cluster, or a service with its own cluster.
        name: the name of the object; by default the cluster's, with ``-job`` or ``-serve``.
        command: the command of a job.
        files: texts by name, which the command reads in `JOB_FILES`.
        serving: the settings of a service.

    Raises:
        ConfigError: something is missing for this kind, or Kubernetes cannot use a part of the description.
    """
    rendering = Rendering(spec, _object_name(spec, kind, name), _groups(spec, kind), serving, _files(files or {}))
    if kind == "job" and not command:
        raise ConfigError("a job needs a command: write it after --, e.g. -- raylens train vit_b32")
    if kind == "service" and serving is None:
        raise ConfigError(
            "a service needs its settings: --serve-config FILE.yaml, as `raylens serve --config` takes them"
        )
    if kind == "job":
        last = ray_job(rendering, command)
    else:
        last = ray_service(rendering) if kind == "service" else ray_cluster(rendering)
    around = (service_account, network_policies, disruption_budgets, job_files)
    return [*(manifest for make in around for manifest in make(rendering)), last]


def to_yaml(manifests: Iterable[Manifest]) -> str:
    """Return the manifests as YAML documents for ``kubectl apply -f``."""
    return "---\n".join(
        yaml.dump(_marked(each), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for each in manifests
    )


def _object_name(spec: ClusterSpec, kind: Kind, name: str | None) -> str:
    if name is not None:
        allowed = name.replace("-", "").isalnum() and name.isascii() and name == name.lower()
        if not allowed or not name[0].isalpha() or name.endswith("-") or len(name) > LONGEST_NAME:
            raise ConfigError(
                f"--name {name!r}: write at most {LONGEST_NAME} lower-case letters, digits and '-', a letter first"
            )
    return name or f"{spec.name}{KINDS[kind][0]}"


def _files(files: Mapping[str, str]) -> Mapping[str, str]:
    size = sum(len(text.encode()) for text in files.values())
    if size > LARGEST_FILES:
        raise ConfigError(
            f"the command's files have {size:,} bytes together, Kubernetes takes at most {LARGEST_FILES:,}"
        )
    return files


def _groups(spec: ClusterSpec, kind: Kind) -> dict[Group, GroupSpec]:
    wanted = KINDS[kind][1]
    groups = {name: group for name, group in spec.groups.items() if name in wanted}
    if not groups:
        raise ConfigError(f"a {kind} needs nodes: describe {' or '.join(wanted)} in the cluster's file")
    return groups


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _marked(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_marked(each) for each in value]
    return _Literal(value) if isinstance(value, str) and "\n" in value else value


class _Dumper(PlainDumper):
    """A dumper that quotes text which kubectl would misread, and writes text of several lines as a literal block."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if OTHER_YAML.fullmatch(text.replace("_", "")) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    _Literal, lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:str", data.text, style="|")
)
