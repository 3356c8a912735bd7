"""The labels and taints with which clouds mark spot machines and GPU types, and their notice before a machine stops."""

from dataclasses import dataclass

from raylens.cluster.description import GroupSpec, KubernetesSpec, MachineSpec
from raylens.cluster.description.kubernetes import Cloud
from raylens.config.placement import Group
from raylens.errors import ConfigError

__all__ = ["affinity", "grace_seconds", "node_selector", "tolerations"]


@dataclass(frozen=True)
class _Spot:
    """The label of a cloud's spot machines, and the notice that they get."""

    label: str
    value: str
    tainted: bool
    seconds: int
    """Seconds between the notice and the machine's end, from the cloud's documentation."""


SPOT: dict[Cloud, _Spot] = {
    "gke": _Spot("cloud.google.com/gke-spot", "true", tainted=True, seconds=25),
    "eks": _Spot("eks.amazonaws.com/capacityType", "SPOT", tainted=False, seconds=120),
    "karpenter": _Spot("karpenter.sh/capacity-type", "spot", tainted=False, seconds=120),
    "aks": _Spot("kubernetes.azure.com/scalesetpriority", "spot", tainted=True, seconds=30),
}
GPU_LABELS: dict[Cloud, str] = {
    "gke": "cloud.google.com/gke-accelerator",
    "karpenter": "karpenter.k8s.aws/instance-gpu-name",
}
GPU_LABEL = "nvidia.com/gpu.product"
"""The label of NVIDIA's feature discovery, which its operator installs on any cloud."""
GRACE_S: dict[Group | str, int] = {"head": 60, "decode": 30, "train": 120, "serve": 120}
"""Seconds in which a head ends its drivers, decoding is abandoned, training saves, and replicas are replaced."""


def grace_seconds(kubernetes: KubernetesSpec, group: str, machine: MachineSpec) -> int:
    """Return the seconds between a pod's notice and its end; at most those that the cloud gives a spot machine."""
    if machine.grace_s:
        return machine.grace_s
    spot = SPOT.get(kubernetes.cloud) if _is_spot(machine) else None
    return min(GRACE_S[group], spot.seconds) if spot else GRACE_S[group]


def node_selector(kubernetes: KubernetesSpec, group: str, machine: MachineSpec) -> dict[str, str]:
    """Return the labels of the Kubernetes nodes on which a pod may run.

    Raises:
        ConfigError: the label of spot machines is unknown.
    """
    labels: dict[str, str] = {}
    if _is_spot(machine):
        spot = SPOT.get(kubernetes.cloud)
        labels |= {spot.label: spot.value} if spot else kubernetes.spot_selector
        if not labels:
            raise ConfigError(
                f"{group}.spot = true: the label of spot machines is unknown; set kubernetes.cloud (gke, eks, "
                "karpenter, aks) or kubernetes.spot_selector"
            )
    if isinstance(machine, GroupSpec) and machine.gpu_kind:
        labels[GPU_LABELS.get(kubernetes.cloud, GPU_LABEL)] = machine.gpu_kind
    return labels | machine.node_selector


def affinity(kubernetes: KubernetesSpec, machine: MachineSpec) -> dict[str, object] | None:
    """Return the rule that keeps other pods off spot machines; None if the cloud's label is unknown."""
    spot = SPOT.get(kubernetes.cloud)
    if spot is None or _is_spot(machine):
        return None
    term = {"matchExpressions": [{"key": spot.label, "operator": "NotIn", "values": [spot.value]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def tolerations(kubernetes: KubernetesSpec, machine: MachineSpec) -> list[dict[str, str]]:
    """Return the taints that a pod tolerates: those of GPUs and spot machines if it needs them, and its own."""
    tolerated: list[dict[str, str]] = []
    if isinstance(machine, GroupSpec) and machine.gpus:
        tolerated.append({"key": machine.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    spot = SPOT.get(kubernetes.cloud)
    more = machine.tolerations
    if _is_spot(machine):
        if spot is not None and spot.tainted:
            tolerated.append({"key": spot.label, "operator": "Equal", "value": spot.value, "effect": "NoSchedule"})
        more = (*kubernetes.spot_tolerations, *more)
    for taint in more:
        match = {"operator": "Exists"} if taint.value is None else {"operator": "Equal", "value": taint.value}
        tolerated.append({"key": taint.key, **match} | ({"effect": taint.effect} if taint.effect else {}))
    return tolerated


def _is_spot(machine: MachineSpec) -> bool:
    return isinstance(machine, GroupSpec) and machine.spot
