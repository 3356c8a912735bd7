"""A service's settings for a cluster that is described, checked against what its nodes have."""

import os
import posixpath
from pathlib import Path

from raylens.cluster.description import ClusterSpec, GroupSpec
from raylens.cluster.kuberay import RESERVED_PORTS, Serving
from raylens.cluster.secret_scan import check_text
from raylens.errors import ConfigError
from raylens.serve.config import ServiceConfig
from raylens.serve.deploy.serve_config import serve_config_yaml
from raylens.workloads.service_config import service_config

__all__ = ["kuberay_service"]

EVERYWHERE = "0.0.0.0"  # noqa: S104 (of a pod, which the manifests' network policies stand around)
UNPRIVILEGED = 1024


def kuberay_service(spec: ClusterSpec, file: Path, *, open_to_all: bool = False) -> Serving:
    """What the manifests must know of the service of ``file``, which its pods' addresses reach.

    Raises:
        ConfigError: the settings are wrong, ask for what the nodes do not have, name a place that the pods cannot
            read, or let everybody call where ``open_to_all`` does not say so.
    """
    config = service_config(file, None, None)
    if spec.serve is None:
        raise ConfigError("a service needs nodes: describe serve in the cluster's file")
    if config.security.keys is None and not open_to_all:
        raise ConfigError(
            f"{file}: security.keys names no API keys, so whoever reaches the service may call it: make some with "
            "`raylens serve key NAME --keys keys.json`, or say --open"
        )
    for field, place in (("registry", config.registry), ("security.keys", config.security.keys)):
        if place is not None:
            _check_place(spec, spec.serve, f"{file}: {field}", place)
    _check_size(spec.serve, config, file)
    if config.port in RESERVED_PORTS or config.port < UNPRIVILEGED:
        raise ConfigError(
            f"{file}: port = {config.port} is Ray's own, or one that only root may open: choose another from "
            f"{UNPRIVILEGED} on, e.g. 8000"
        )
    text = serve_config_yaml(config.model_copy(update={"host": EVERYWHERE}))
    check_text(str(file), [text], os.environ)
    return Serving(text, config.port, haproxy=config.proxy == "haproxy")


def _check_place(spec: ClusterSpec, group: GroupSpec, field: str, place: str) -> None:
    """All pods of a service read it: those of the group, and the head's, which builds the application."""
    if "://" in place:
        return
    place = posixpath.normpath(place)
    for volumes in (spec.volumes_of(group), spec.volumes_of(spec.head)):
        if not any(place.startswith(f"{volume.path}/") or place == volume.path for volume in volumes):
            raise ConfigError(
                f"{field} = {place!r} is a place of this machine, which the pods do not see: name a bucket (s3://...) "
                "or a path in a volume of the whole cluster"
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
    for resource, of_node in (("cpus", group.cpus), ("gpus", group.gpus)):
        least = sum(tower.min_replicas * getattr(tower, resource) for _, tower in towers)
        if least > group.max_nodes * of_node:
            raise ConfigError(
                f"{file}: the fewest replicas take {least:g} {resource}, serve has {group.max_nodes * of_node} with "
                f"max_nodes = {group.max_nodes}: raise serve.max_nodes or serve.{resource}"
            )
