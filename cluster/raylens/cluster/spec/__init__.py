"""The description of a cluster: `ClusterSpec`, from YAML."""

from raylens.cluster.spec.cluster import ClusterSpec, load_spec
from raylens.cluster.spec.fields import bytes_of, is_pinned
from raylens.cluster.spec.kubernetes import JobSpec, KubernetesSpec, PeerSpec
from raylens.cluster.spec.launcher import LauncherSpec
from raylens.cluster.spec.machines import GroupSpec, HeadSpec, MachineSpec
from raylens.cluster.spec.pods import CredentialsSpec, TolerationSpec, VolumeSpec

__all__ = [
    "ClusterSpec",
    "CredentialsSpec",
    "GroupSpec",
    "HeadSpec",
    "JobSpec",
    "KubernetesSpec",
    "LauncherSpec",
    "MachineSpec",
    "PeerSpec",
    "TolerationSpec",
    "VolumeSpec",
    "bytes_of",
    "is_pinned",
    "load_spec",
]
