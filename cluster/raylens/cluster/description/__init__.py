"""The description of a cluster, which is read from YAML: `ClusterSpec` and its parts."""

from raylens.cluster.description.cluster import ClusterSpec, load_spec
from raylens.cluster.description.fields import bytes_of, is_pinned
from raylens.cluster.description.kubernetes import JobSpec, KubernetesSpec, PeerSpec
from raylens.cluster.description.launcher import LauncherSpec
from raylens.cluster.description.machines import GroupSpec, HeadSpec, MachineSpec
from raylens.cluster.description.pods import CredentialsSpec, TolerationSpec, VolumeSpec

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
