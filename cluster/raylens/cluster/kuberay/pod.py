"""The pods of a cluster."""

from typing import Any

from raylens.cluster.description import MachineSpec, VolumeSpec
from raylens.cluster.kuberay import clouds
from raylens.cluster.kuberay.container import FILES, SCRATCH, SHARED_MEMORY, ray_container
from raylens.cluster.kuberay.names import HEAD, Manifest, Rendering
from raylens.errors import ConfigError
from raylens.placement import GROUP_LABEL

__all__ = ["POD_SECURITY", "pod_template", "scheduling"]

USER = 1000
"""Of the image, as in docker/Dockerfile and in Ray's own images."""
POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Kubernetes' own autoscalers do not move such a pod to save a machine."""
COSTLY = (HEAD, "train")
SECRET_MODE = 0o440


def pod_template(rendering: Rendering, group: str, machine: MachineSpec) -> Manifest:
    """Of the head or of a group.

    Raises:
        ConfigError: a volume or a spot machine is described in a way that Kubernetes cannot use.
    """
    spec = rendering.spec
    annotations = (STAYS if group in COSTLY else {}) | machine.annotations
    metadata: Manifest = {"labels": rendering.selector()}
    if annotations:
        metadata["annotations"] = annotations
    pod: Manifest = {
        # Kubernetes would put the address of every service into the environment, such as RAY_PORT of one named ray.
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "terminationGracePeriodSeconds": clouds.grace_seconds(spec.kubernetes, group, machine),
        **_identity(rendering, group),
        **scheduling(rendering, group, machine),
        "containers": [ray_container(rendering, group, machine)],
        "volumes": _volumes(rendering, group, machine),
    }
    return {"metadata": metadata, "spec": pod}


def scheduling(rendering: Rendering, group: str, machine: MachineSpec) -> Manifest:
    """Where Kubernetes may put a pod, and from where its image comes."""
    kubernetes = rendering.spec.kubernetes
    found: dict[str, Any] = {
        "priorityClassName": machine.priority_class,
        "imagePullSecrets": [{"name": name} for name in kubernetes.pull_secrets],
        "nodeSelector": clouds.node_selector(kubernetes, group, machine),
        "affinity": clouds.affinity(kubernetes, machine),
        "tolerations": clouds.tolerations(kubernetes, machine),
        "topologySpreadConstraints": _spread(rendering) if group == "serve" else None,
    }
    return {name: value for name, value in found.items() if value}


def _identity(rendering: Rendering, group: str) -> Manifest:
    """Only the autoscaler, a container of the head's pod, talks to Kubernetes; a cloud's identity needs no token."""
    account = rendering.spec.kubernetes.service_account
    found: Manifest = {"serviceAccountName": account.name} if account else {}
    return found if group == HEAD else found | {"automountServiceAccountToken": False}


def _spread(rendering: Rendering) -> list[Manifest]:
    """One machine's or one zone's loss leaves replicas elsewhere; where there is no other, they share."""
    selector = {"matchLabels": rendering.selector(**{GROUP_LABEL: "serve"})}
    return [
        {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": selector}
        for key in ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    ]


def _volumes(rendering: Rendering, group: str, machine: MachineSpec) -> list[Manifest]:
    shared = machine.shared_memory or str(machine.shared_memory_bytes)
    files = [{"name": FILES, "configMap": {"name": f"{rendering.name}-files"}}]
    return [
        {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": shared}},
        {"name": SCRATCH, "emptyDir": {"sizeLimit": machine.scratch}},
        *({"name": volume.name, **_source(rendering, group, volume)} for volume in rendering.spec.volumes_of(machine)),
        *(files if group == HEAD and rendering.files else []),
    ]


def _source(rendering: Rendering, group: str, volume: VolumeSpec) -> Manifest:
    if volume.claim:
        return {"persistentVolumeClaim": {"claimName": volume.claim, "readOnly": volume.read_only}}
    if volume.secret:
        return {"secret": {"secretName": volume.secret, "defaultMode": SECRET_MODE}}
    if volume.empty:
        return {"emptyDir": {"sizeLimit": volume.empty}}
    if not rendering.spec.kubernetes.host_paths:
        raise ConfigError(
            f"{group}: volume {volume.name!r} is a folder of the machine, {volume.host!r}, a way out of the container: "
            "use claim or empty, or say kubernetes.host_paths: true"
        )
    return {"hostPath": {"path": volume.host, "type": "Directory"}}
