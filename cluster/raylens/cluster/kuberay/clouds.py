"""How the clouds mark spot machines and kinds of GPUs, and how long they wait before they take a machine away."""

from dataclasses import dataclass

from raylens.cluster.description import GroupSpec, KubernetesSpec, MachineSpec
from raylens.cluster.description.kubernetes import Cloud
from raylens.errors import ConfigError
from raylens.placement import Group

__all__ = ["affinity", "grace_seconds", "node_selector", "tolerations"]


@dataclass(frozen=True)
class _Spot:
    """Spot machines of a cloud."""

    label: str
    value: str
    tainted: bool
    seconds: int
    """Between the notice and the end, as the cloud documents it."""


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
"""Of NVIDIA's feature discovery, which comes with its operator everywhere."""
GRACE_S: dict[Group | str, int] = {"head": 60, "decode": 30, "train": 120, "serve": 120}
"""A head ends its drivers; decoding is done again elsewhere; training saves; replicas are replaced before they go."""


def grace_seconds(kubernetes: KubernetesSpec, group: str, machine: MachineSpec) -> int:
    """Between the word that a pod must go and its end; no more than a cloud gives a spot machine."""
    if machine.grace_s:
        return machine.grace_s
    spot = SPOT.get(kubernetes.cloud) if _is_spot(machine) else None
    return min(GRACE_S[group], spot.seconds) if spot else GRACE_S[group]


def node_selector(kubernetes: KubernetesSpec, group: str, machine: MachineSpec) -> dict[str, str]:
    """Labels of the Kubernetes nodes that a pod may go to.

    Raises:
        ConfigError: nothing says how spot machines are known.
    """
    found: dict[str, str] = {}
    if _is_spot(machine):
        spot = SPOT.get(kubernetes.cloud)
        found |= {spot.label: spot.value} if spot else kubernetes.spot_selector
        if not found:
            raise ConfigError(
                f"{group}.spot = true: say how spot machines are known, by kubernetes.cloud (gke, eks, karpenter, aks) "
                "or by kubernetes.spot_selector"
            )
    if isinstance(machine, GroupSpec) and machine.gpu_kind:
        found[GPU_LABELS.get(kubernetes.cloud, GPU_LABEL)] = machine.gpu_kind
    return found | machine.node_selector


def affinity(kubernetes: KubernetesSpec, machine: MachineSpec) -> dict[str, object] | None:
    """What is not meant for spot machines stays away from them, where the cloud's label is known."""
    spot = SPOT.get(kubernetes.cloud)
    if spot is None or _is_spot(machine):
        return None
    term = {"matchExpressions": [{"key": spot.label, "operator": "NotIn", "values": [spot.value]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}


def tolerations(kubernetes: KubernetesSpec, machine: MachineSpec) -> list[dict[str, str]]:
    """Taints that a pod does not mind: those of GPUs and spot machines where it needs them, and its own."""
    found: list[dict[str, str]] = []
    if isinstance(machine, GroupSpec) and machine.gpus:
        found.append({"key": machine.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    spot = SPOT.get(kubernetes.cloud)
    more = machine.tolerations
    if _is_spot(machine):
        if spot is not None and spot.tainted:
            found.append({"key": spot.label, "operator": "Equal", "value": spot.value, "effect": "NoSchedule"})
        more = (*kubernetes.spot_tolerations, *more)
    for one in more:
        way = {"operator": "Exists"} if one.value is None else {"operator": "Equal", "value": one.value}
        found.append({"key": one.key, **way} | ({"effect": one.effect} if one.effect else {}))
    return found


def _is_spot(machine: MachineSpec) -> bool:
    return isinstance(machine, GroupSpec) and machine.spot
