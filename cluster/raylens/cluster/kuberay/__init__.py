"""Manifests for KubeRay, rendered from a cluster's description."""

from raylens.cluster.kuberay.names import JOB_FILES, RESERVED_PORTS, Manifest, Serving
from raylens.cluster.kuberay.render import KINDS, Kind, render, to_yaml

__all__ = ["JOB_FILES", "KINDS", "RESERVED_PORTS", "Kind", "Manifest", "Serving", "render", "to_yaml"]
