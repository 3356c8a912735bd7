"""The container that runs Ray: its environment, resources, probes and shutdown."""

from raylens.cluster.description import CredentialsSpec, GroupSpec, MachineSpec
from raylens.cluster.kuberay.clouds import grace_seconds
from raylens.cluster.kuberay.names import (
    AGENT_PORT,
    CLIENT_PORT,
    DASHBOARD_PORT,
    GCS_PORT,
    HEAD,
    JOB_FILES,
    METRICS_PORT,
    Manifest,
    Rendering,
)
from raylens.cluster.niceness import WORKER_NICENESS

__all__ = ["CONTAINER_SECURITY", "environment", "ray_container"]

CONTAINER_SECURITY: Manifest = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SHARED_MEMORY, SCRATCH = "shared-mem", "ray-logs"
"""Names of volumes as KubeRay gives them: it then adds none of its own, and the autoscaler shares the logs."""
FILES = "job-files"
END_S = 10
"""The part of a pod's grace period in which Ray's processes end."""
REASON = "the pod is being stopped"


def ray_container(rendering: Rendering, group: str, machine: MachineSpec) -> Manifest:
    """Return the first container of a pod of ``group``; KubeRay adds the command, and the token from its Secret."""
    container: Manifest = {
        "name": f"ray-{group}",
        "image": rendering.spec.image_of(machine),
        "imagePullPolicy": "IfNotPresent",
        "ports": _ports(rendering, group),
        "env": environment(rendering, group, machine),
        "envFrom": [{"secretRef": {"name": each.secret}} for each in rendering.spec.credentials if not each.keys],
        "resources": _resources(machine),
        "volumeMounts": _mounts(rendering, group, machine),
        "securityContext": CONTAINER_SECURITY,
        **_probes(rendering, group),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/bash", "-c", _before_stop(rendering, group, machine)]}}},
    }
    if not container["envFrom"]:
        del container["envFrom"]
    return container


def _mounts(rendering: Rendering, group: str, machine: MachineSpec) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 (where Ray keeps its objects)
        {"name": SCRATCH, "mountPath": "/tmp/ray"},  # noqa: S108
    ]
    mounts += [
        {"name": volume.name, "mountPath": volume.path, "readOnly": volume.read_only or volume.secret is not None}
        for volume in rendering.spec.volumes_of(machine)
    ]
    if group == HEAD and rendering.files:
        mounts.append({"name": FILES, "mountPath": JOB_FILES, "readOnly": True})
    return mounts


def environment(rendering: Rendering, group: str, machine: MachineSpec) -> list[Manifest]:
    """Return the variables of the container, by value and by the key of a Secret.

    KubeRay sets ``RAY_AUTH_MODE`` as well. An operator that is too old for ``authOptions`` ignores them, and would
    start Ray without authentication; with this variable Ray does not start without a token.
    """
    values = {
        "RAY_AUTH_MODE": "token",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        WORKER_NICENESS: str(rendering.spec.niceness),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if group == HEAD:
        # Ray Train stops in an orderly way on SIGINT, and Ray's default of 3 s is too short to save a checkpoint.
        values |= {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    if rendering.serve_port is not None and group in (HEAD, "serve"):
        values["RAY_SERVE_ENABLE_HA_PROXY"] = "1" if rendering.haproxy else "0"
    values |= rendering.spec.env | machine.env
    by_value: list[Manifest] = [{"name": name, "value": value} for name, value in values.items()]
    return [*by_value, *(entry for each in rendering.spec.credentials for entry in _from_secret(each))]


def _from_secret(credentials: CredentialsSpec) -> list[Manifest]:
    return [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": credentials.secret, "key": key}}}
        for name, key in credentials.keys.items()
    ]


def _ports(rendering: Rendering, group: str) -> list[Manifest]:
    ports = {"metrics": METRICS_PORT}
    if group == HEAD:
        ports = {"gcs-server": GCS_PORT, "dashboard": DASHBOARD_PORT, "client": CLIENT_PORT} | ports
    if rendering.serve_port is not None and group in (HEAD, "serve"):
        ports["serve"] = rendering.serve_port
    return [{"name": name, "containerPort": port} for name, port in ports.items()]


def _resources(machine: MachineSpec) -> Manifest:
    """Return requests and limits: memory is limited to its request, for the neighbours' sake; CPUs have no limit."""
    requests: Manifest = {"cpu": str(machine.cpus), "memory": machine.memory, "ephemeral-storage": machine.scratch}
    limits: Manifest = {"memory": machine.memory}
    if isinstance(machine, GroupSpec) and machine.gpus:
        requests[machine.gpu_resource] = limits[machine.gpu_resource] = str(machine.gpus)
    return {"requests": requests, "limits": limits}


def _probes(rendering: Rendering, group: str) -> Manifest:
    """Return the probes that KubeRay would add for this version of Ray.

    Written out, they do not depend on the operator's version and flags; and KubeRay's own probe of a service's nodes
    calls wget in the image. A node under full load answers late: only ten minutes of silence end it.
    """
    health = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    ready: Manifest = {**health, "periodSeconds": 5, "failureThreshold": 10}
    if rendering.serving is not None and group == "serve":
        # The node receives requests only while its proxy answers.
        path = {"path": "/-/healthz", "port": rendering.serving.port}
        ready = {"httpGet": path, "timeoutSeconds": 3, "periodSeconds": 5, "failureThreshold": 1}
    return {
        "startupProbe": {**health, "periodSeconds": 5, "failureThreshold": 120},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 60},
        "readinessProbe": ready,
    }


def _before_stop(rendering: Rendering, group: str, machine: MachineSpec) -> str:
    """Return the command that a pod runs before it stops, for an eviction, an upgrade or the end of a spot machine.

    A worker first drains its node: training saves, replicas are replaced, and nothing new is placed there. Ray ends an
    idle node at once, after which its agent is silent; otherwise the whole grace period is used.
    """
    stop = f"ray stop --grace-period {END_S // 2}"
    if group == HEAD:
        return stop
    seconds = max(1, grace_seconds(rendering.spec.kubernetes, group, machine) - END_S)
    drain = (
        'ray drain-node --address "$RAY_ADDRESS" --reason DRAIN_NODE_REASON_PREEMPTION '
        f"--reason-message '{REASON}' --deadline-remaining-seconds {seconds}"
    )
    alive = f"(: < /dev/tcp/127.0.0.1/{AGENT_PORT}) 2>/dev/null"
    return f"{drain} && for _ in $(seq {seconds}); do {alive} || break; sleep 1; done; {stop}"
