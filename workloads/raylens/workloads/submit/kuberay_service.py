"""A service for the KubeRay manifests of a described cluster, checked against the resources of its nodes."""

import os
import posixpath
from pathlib import Path

from raylens.cluster import check_text
from raylens.cluster.description import ClusterSpec, GroupSpec
from raylens.cluster.kuberay import RESERVED_PORTS, Serving
from raylens.errors import ConfigError
from raylens.serve import ServiceConfig
from raylens.serve.deploy import serve_config_yaml
from raylens.workloads.service_config import service_config

__all__ = ["kuberay_service"]

EVERYWHERE = "0.0.0.0"  # noqa: S104 (in a pod, which the manifests' network policies protect)
UNPRIVILEGED = 1024


def kuberay_service(spec: ClusterSpec, file: Path, *, open_to_all: bool = False) -> Serving:
    """Return what the manifests need to know of the service whose settings are in ``file``.

    Raises:
        ConfigError: the settings are wrong, exceed the nodes' resources, name a path that the pods cannot read, or let
            everybody call although ``open_to_all`` is False.
    """
    config = service_config(file, None, None)
    if spec.serve is None:
        raise ConfigError("a service needs nodes: describe serve in the cluster's file")
    if config.security.keys is None and not open_to_all:
        raise ConfigError(
            f"{file}: security.keys names no API keys, so whoever reaches the service may call it: make keys with "
            "`raylens serve key NAME --keys keys.json`, or add --open"
        )
    for field, uri in (("registry", config.registry), ("security.keys", config.security.keys)):
        if uri is not None:
            _check_readable(spec, spec.serve, f"{file}: {field}", uri)
    _check_size(spec.serve, config, file)
    if config.port in RESERVED_PORTS or config.port < UNPRIVILEGED:
        raise ConfigError(
            f"{file}: port = {config.port} is Ray's own, or one that only root may open: choose another from "
            f"{UNPRIVILEGED} on, e.g. 8000"
        )
    text = serve_config_yaml(config.model_copy(update={"host": EVERYWHERE}))
    check_text(str(file), [text], os.environ)
    return Serving(text, config.port, haproxy=config.proxy == "haproxy")


def _check_readable(spec: ClusterSpec, group: GroupSpec, field: str, uri: str) -> None:
    """Check that all pods of the service can read it: the group's, and the head's, which builds the application."""
    if "://" in uri:
        return
    path = posixpath.normpath(uri)
    for volumes in (spec.volumes_of(group), spec.volumes_of(spec.head)):
        if not any(path.startswith(f"{volume.path}/") or path == volume.path for volume in volumes):
            raise ConfigError(
                f"{field} = {path!r} is a path of this machine, which the pods do not see: name a bucket (s3://...) or "
                "a path in a volume of the whole cluster"
            )


def _check_size(group: GroupSpec, config: ServiceConfig, file: Path) -> None:
    towers = [
        (f"models.{number}.{kind}", tower)
        for number, model in enumerate(config.models)
        for kind, tower in (("text", model.text), ("image", model.image))
    ]
    for name, tower in towers:
        if tower.cpus > group.cpus or tower.gpus > group.gpus:
            raise ConfigError(
                f"{file}: a replica of {name} takes {tower.cpus:g} CPUs and {tower.gpus:g} GPUs, a node of serve has "
                f"{group.cpus} and {group.gpus}: raise serve.cpus or serve.gpus, or lower what the replica takes"
            )
    for resource, per_node in (("cpus", group.cpus), ("gpus", group.gpus)):
        required = sum(tower.min_replicas * getattr(tower, resource) for _, tower in towers)
        if required > group.max_nodes * per_node:
            raise ConfigError(
                f"{file}: the fewest replicas take {required:g} {resource}, serve has {group.max_nodes * per_node} "
                f"with max_nodes = {group.max_nodes}: raise serve.max_nodes or serve.{resource}"
            )
