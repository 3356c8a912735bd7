"""Manifests of a cluster, a job or a service, in the order in which they are applied."""

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
from raylens.errors import ConfigError
from raylens.placement import Group

__all__ = ["KINDS", "Kind", "render", "to_yaml"]

Kind = Literal["cluster", "job", "service"]
KINDS: dict[Kind, tuple[str, tuple[Group, ...]]] = {
    "cluster": ("", ("decode", "train", "serve")),
    "job": ("-job", ("decode", "train")),
    "service": ("-serve", ("serve",)),
}
"""For each kind of object, what its name has at its end, and the groups that it has if they are described."""
LONGEST_NAME = 47
LARGEST_FILES = 900_000
OTHER_YAML = re.compile(
    r"[yYnN]|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?0[xXoObB][0-9a-fA-F]+|[0-9]{4}(-[0-9]{1,2}){2}.*"
)
"""Text that kubectl reads as a switch, a number or a time where PyYAML sees text: y, 1e-3, 0o17, 2026-1-2."""


@dataclass(frozen=True)
class _Literal:
    """Text that is written as it is read, line by line."""

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
    """All manifests of one object of KubeRay 1.7.

    Args:
        spec: the description.
        kind: a cluster that stays, a job with a cluster of its own, or a service with one.
        name: of the object; the cluster's, with ``-job`` or ``-serve``, by default.
        command: of a job.
        files: by name, that the command finds in `JOB_FILES`.
        serving: of a service.

    Raises:
        ConfigError: something is missing for this kind, or described in a way that Kubernetes cannot use.
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
    """Documents for ``kubectl apply -f``."""
    return "---\n".join(
        yaml.dump(_marked(one), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120) for one in manifests
    )


def _object_name(spec: ClusterSpec, kind: Kind, name: str | None) -> str:
    found = name or f"{spec.name}{KINDS[kind][0]}"
    if name is not None:
        allowed = name.replace("-", "").isalnum() and name.isascii() and name == name.lower()
        if not allowed or not name[0].isalpha() or name.endswith("-") or len(name) > LONGEST_NAME:
            raise ConfigError(
                f"--name {name!r}: write at most {LONGEST_NAME} lower-case letters, digits and '-', a letter first"
            )
    return found


def _files(files: Mapping[str, str]) -> Mapping[str, str]:
    size = sum(len(text.encode()) for text in files.values())
    if size > LARGEST_FILES:
        raise ConfigError(f"the files of the command have {size:,} bytes, Kubernetes takes {LARGEST_FILES:,} together")
    return files


def _groups(spec: ClusterSpec, kind: Kind) -> dict[Group, GroupSpec]:
    wanted = KINDS[kind][1]
    found = {group: one for group, one in spec.groups.items() if group in wanted}
    if not found:
        raise ConfigError(f"a {kind} needs nodes: describe {' or '.join(wanted)} in the cluster's file")
    return found


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _marked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return _Literal(value) if isinstance(value, str) and "\n" in value else value


class _Dumper(PlainDumper):
    """With text quoted that kubectl would misread, and text of several lines as it is read."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if OTHER_YAML.fullmatch(text.replace("_", "")) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    _Literal, lambda dumper, data: dumper.represent_scalar("tag:yaml.org,2002:str", data.text, style="|")
)
