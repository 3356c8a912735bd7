"""What the manifests of one object share: its name, its groups, labels and ports."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from raylens.cluster.description import ClusterSpec, GroupSpec, MachineSpec
from raylens.config import dump_yaml
from raylens.placement import Group, node_labels

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
"""On all pods of one object. KubeRay's own label has a name that is not known before, for jobs and services."""
GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, METRICS_PORT = 6379, 8265, 10001, 8080
HEAD: Literal["head"] = "head"
JOB_FILES = "/etc/raylens/job"
"""The folder, on the head, of the files that a job's command names."""
AGENT_PORT = 52365
"""Of each node's agent, which says whether the node, and on the head the cluster's store, are well."""
RESERVED_PORTS = (GCS_PORT, DASHBOARD_PORT, CLIENT_PORT, METRICS_PORT, AGENT_PORT)
"""Of a pod, that a service cannot have."""


@dataclass(frozen=True)
class Serving:
    """What the nodes of a service must know of it."""

    config: str
    """The declaration that Ray Serve takes, as YAML."""
    port: int = 8000
    haproxy: bool = True


@dataclass(frozen=True)
class Rendering:
    """One object of KubeRay that is rendered from a cluster's description."""

    spec: ClusterSpec
    name: str
    """The object's."""
    groups: Mapping[Group, GroupSpec]
    """Those that it has."""
    serving: Serving | None = None
    """Where a service is part of it; a plain cluster may be asked to serve later."""
    files: Mapping[str, str] = field(default_factory=dict)
    """That the driver of a job finds in `JOB_FILES`."""

    @property
    def serve_port(self) -> int | None:
        """Of the embedding API, where there are nodes for it."""
        if self.serving is not None:
            return self.serving.port
        return Serving("").port if "serve" in self.groups else None

    @property
    def haproxy(self) -> bool:
        """Whether requests come in through HAProxy, which Ray must know when it starts."""
        return self.serve_port is not None and (self.serving is None or self.serving.haproxy)

    def node_labels(self, group: Group | None, machine: MachineSpec) -> dict[str, str]:
        """Labels of Ray's nodes of a group, or of the head: those by which work is placed, and the user's own."""
        sizes = {name: one.size for name, one in self.groups.items()}
        return node_labels(group or HEAD, sizes) | machine.labels

    def selector(self, **more: str) -> dict[str, str]:
        """The labels of the object's pods."""
        return {CLUSTER_LABEL: self.name, **more}

    def metadata(self, name: str | None = None, annotations: Mapping[str, str] | None = None) -> Manifest:
        """Of an object that is rendered: ``name``, or the rendering's own."""
        kubernetes = self.spec.kubernetes
        found: Manifest = {"name": name or self.name}
        if kubernetes.namespace:
            found["namespace"] = kubernetes.namespace
        found["labels"] = {"app.kubernetes.io/managed-by": "raylens", CLUSTER_LABEL: self.name, **kubernetes.labels}
        if annotations:
            found["annotations"] = dict(annotations)
        return found

    def origin(self) -> dict[str, str]:
        """An annotation that says from which description an object was rendered."""
        return {"raylens.io/spec": hashlib.sha256(dump_yaml(self.spec).encode()).hexdigest()[:16]}
