"""What all manifests of one object share: its name, its groups, labels and ports."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raylens.cluster.description import ClusterSpec, GroupSpec, MachineSpec
from raylens.config import dump_yaml
from raylens.config.placement import Group, node_labels

__all__ = [
    "AGENT_PORT",
    "CLIENT_PORT",
    "CLUSTER_LABEL",
    "DASHBOARD_PORT",
    "GCS_PORT",
    "HEAD",
    "JOB_FILES",
    "METRICS_PORT",
    "RAY_API",
    "RESERVED_PORTS",
    "Manifest",
    "Rendering",
    "Serving",
]

Manifest = dict[str, Any]
RAY_API = "ray.io/v1"
CLUSTER_LABEL = "raylens.io/cluster"
"""The label of all pods of one object. The value of KubeRay's own is not known in advance for jobs and services."""
GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, METRICS_PORT = 6379, 8265, 10001, 8080
HEAD: Literal["head"] = "head"
JOB_FILES = "/etc/raylens/job"
"""The folder on the head with the files that a job's command names."""
AGENT_PORT = 52365
"""Port of each node's agent, which reports whether the node, and on the head the cluster's store, are healthy."""
RESERVED_PORTS = (GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, METRICS_PORT, AGENT_PORT)
"""Ports of a pod that a service cannot use."""


@dataclass(frozen=True)
class Serving:
    """The settings of a service that its nodes need."""

    config: str
    """The configuration of Ray Serve, as YAML."""
    port: int = 8000
    haproxy: bool = True


@dataclass(frozen=True)
class Rendering:
    """An object of KubeRay that is rendered from a cluster's description."""

    spec: ClusterSpec
    name: str
    """The name of the object."""
    groups: Mapping[Group, GroupSpec]
    """The groups of nodes that the object has."""
    serving: Serving | None = None
    """The service that is part of the object; a plain cluster may serve later."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Texts of the files that a job's driver reads in `JOB_FILES`, by name."""

    @property
    def serve_port(self) -> int | None:
        """The port of the embedding API; None if no nodes serve it."""
        if self.serving is not None:
            return self.serving.port
        return Serving("").port if "serve" in self.groups else None

    @property
    def haproxy(self) -> bool:
        """Whether requests arrive through HAProxy, which Ray must know when it starts."""
        return self.serve_port is not None and (self.serving is None or self.serving.haproxy)

    def node_labels(self, group: Group | None, machine: MachineSpec) -> dict[str, str]:
        """Return the labels of a group's nodes, or of the head: those that place work, and the user's own."""
        sizes = {name: each.size for name, each in self.groups.items()}
        return node_labels(group or HEAD, sizes) | machine.labels

    def selector(self, **more: str) -> dict[str, str]:
        """Return the labels that select the object's pods."""
        return {CLUSTER_LABEL: self.name, **more}

    def metadata(self, name: str | None = None, annotations: Mapping[str, str] | None = None) -> Manifest:
        """Return the metadata of a rendered object with a name; by default the rendering's own."""
        kubernetes = self.spec.kubernetes
        manifest: Manifest = {"name": name or self.name}
        if kubernetes.namespace:
            manifest["namespace"] = kubernetes.namespace
        manifest["labels"] = {"app.kubernetes.io/managed-by": "raylens", CLUSTER_LABEL: self.name, **kubernetes.labels}
        if annotations:
            manifest["annotations"] = dict(annotations)
        return manifest

    def origin(self) -> dict[str, str]:
        """Return an annotation with the hash of the description from which an object was rendered."""
        return {"raylens.io/spec": hashlib.sha256(dump_yaml(self.spec).encode()).hexdigest()[:16]}
