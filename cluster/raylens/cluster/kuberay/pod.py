"""The pods of a cluster: their template, scheduling and volumes."""

from typing import Any

from raylens.cluster.description import MachineSpec, VolumeSpec
from raylens.cluster.kuberay import clouds
from raylens.cluster.kuberay.container import FILES, SCRATCH, SHARED_MEMORY, ray_container
from raylens.cluster.kuberay.names import HEAD, Manifest, Rendering
from raylens.config.placement import GROUP_LABEL
from raylens.errors import ConfigError

__all__ = ["POD_SECURITY", "pod_template", "scheduling"]

USER = 1000
"""The user ID of the image, as in docker/Dockerfile and in Ray's own images."""
POD_SECURITY: Manifest = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
STAYS = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations of pods that Kubernetes' autoscalers must not move in order to save a machine."""
COSTLY = (HEAD, "train")
SECRET_MODE = 0o440


def pod_template(rendering: Rendering, group: str, machine: MachineSpec) -> Manifest:
    """Return the template of the head's pod, or of a group's pods.

    Raises:
        ConfigError: Kubernetes cannot use the description of a volume or of a spot machine.
    """
    spec = rendering.spec
    annotations = (STAYS if group in COSTLY else {}) | machine.annotations
    metadata: Manifest = {"labels": rendering.selector()}
    if annotations:
        metadata["annotations"] = annotations
    pod: Manifest = {
        # Kubernetes would set variables with the address of every service, such as RAY_PORT for a service named ray.
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
    """Return where Kubernetes may place a pod, and with which Secrets it pulls the image."""
    kubernetes = rendering.spec.kubernetes
    fields: dict[str, Any] = {
        "priorityClassName": machine.priority_class,
        "imagePullSecrets": [{"name": name} for name in kubernetes.pull_secrets],
        "nodeSelector": clouds.node_selector(kubernetes, group, machine),
        "affinity": clouds.affinity(kubernetes, machine),
        "tolerations": clouds.tolerations(kubernetes, machine),
        "topologySpreadConstraints": _spread(rendering) if group == "serve" else None,
    }
    return {name: value for name, value in fields.items() if value}


def _identity(rendering: Rendering, group: str) -> Manifest:
    """Return the service account; only the autoscaler, a container of the head's pod, needs Kubernetes' token."""
    account = rendering.spec.kubernetes.service_account
    identity: Manifest = {"serviceAccountName": account.name} if account else {}
    return identity if group == HEAD else identity | {"automountServiceAccountToken": False}


def _spread(rendering: Rendering) -> list[Manifest]:
    """Return rules that spread replicas over machines and zones as far as there are several."""
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
            f"{group}: volume {volume.name!r} is a folder of the machine, {volume.host!r}, which weakens the "
            "container's isolation: use claim or empty, or set kubernetes.host_paths: true"
        )
    return {"hostPath": {"path": volume.host, "type": "Directory"}}
