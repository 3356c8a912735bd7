"""The container that runs Ray: its environment, resources, probes and end."""

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
"""Volumes by the names that KubeRay gives them: it then adds none of its own, and the autoscaler shares the logs."""
FILES = "job-files"
END_S = 10
"""Of a pod's last seconds, those that Ray's processes have to end."""
TOLD = "the pod is being stopped"


def ray_container(rendering: Rendering, group: str, machine: MachineSpec) -> Manifest:
    """The first container of a pod of ``group``; KubeRay adds the command, and the token from its Secret."""
    found: Manifest = {
        "name": f"ray-{group}",
        "image": rendering.spec.image_of(machine),
        "imagePullPolicy": "IfNotPresent",
        "ports": _ports(rendering, group),
        "env": environment(rendering, group, machine),
        "envFrom": [{"secretRef": {"name": one.secret}} for one in rendering.spec.credentials if not one.keys],
        "resources": _resources(machine),
        "volumeMounts": _mounts(rendering, group, machine),
        "securityContext": CONTAINER_SECURITY,
        **_probes(rendering, group),
        "lifecycle": {"preStop": {"exec": {"command": ["/bin/bash", "-c", _last_words(rendering, group, machine)]}}},
    }
    if not found["envFrom"]:
        del found["envFrom"]
    return found


def _mounts(rendering: Rendering, group: str, machine: MachineSpec) -> list[Manifest]:
    found: list[Manifest] = [
        {"name": SHARED_MEMORY, "mountPath": "/dev/shm"},  # noqa: S108 (where Ray keeps its objects)
        {"name": SCRATCH, "mountPath": "/tmp/ray"},  # noqa: S108
    ]
    found += [
        {"name": one.name, "mountPath": one.path, "readOnly": one.read_only or one.secret is not None}
        for one in rendering.spec.volumes_of(machine)
    ]
    if group == HEAD and rendering.files:
        found.append({"name": FILES, "mountPath": JOB_FILES, "readOnly": True})
    return found


def environment(rendering: Rendering, group: str, machine: MachineSpec) -> list[Manifest]:
    """Variables by value, and by the name of a Secret's key.

    ``RAY_AUTH_MODE`` is what KubeRay sets as well. An operator too old to know ``authOptions`` drops them in silence,
    and would start Ray open to everybody: with this it does not start at all, for want of a token.
    """
    values = {
        "RAY_AUTH_MODE": "token",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        WORKER_NICENESS: str(rendering.spec.niceness),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    if group == HEAD:
        # Ray Train gives up in order on SIGINT, and Ray's own patience of 3 s is too short to save.
        values |= {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    if rendering.serve_port is not None and group in (HEAD, "serve"):
        values["RAY_SERVE_ENABLE_HA_PROXY"] = "1" if rendering.haproxy else "0"
    values |= rendering.spec.env | machine.env
    by_value: list[Manifest] = [{"name": name, "value": value} for name, value in values.items()]
    return [*by_value, *(entry for one in rendering.spec.credentials for entry in _from_secret(one))]


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
    """Memory is bounded by what is asked for, so that no neighbour's pod is killed; processors are not throttled."""
    asked: Manifest = {"cpu": str(machine.cpus), "memory": machine.memory, "ephemeral-storage": machine.scratch}
    bound: Manifest = {"memory": machine.memory}
    if isinstance(machine, GroupSpec) and machine.gpus:
        asked[machine.gpu_resource] = bound[machine.gpu_resource] = str(machine.gpus)
    return {"requests": asked, "limits": bound}


def _probes(rendering: Rendering, group: str) -> Manifest:
    """As KubeRay would add them for this version of Ray, but written out.

    So they do not depend on the operator's version and flags; and KubeRay's own for a service's nodes calls wget in the
    image. A node that computes all it can answers late: only ten minutes of silence end it.
    """
    health = {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}, "timeoutSeconds": 5}
    ready: Manifest = {**health, "periodSeconds": 5, "failureThreshold": 10}
    if rendering.serving is not None and group == "serve":
        # The node takes requests while its proxy is there, and not a moment longer.
        path = {"path": "/-/healthz", "port": rendering.serving.port}
        ready = {"httpGet": path, "timeoutSeconds": 3, "periodSeconds": 5, "failureThreshold": 1}
    return {
        "startupProbe": {**health, "periodSeconds": 5, "failureThreshold": 120},
        "livenessProbe": {**health, "periodSeconds": 10, "failureThreshold": 60},
        "readinessProbe": ready,
    }


def _last_words(rendering: Rendering, group: str, machine: MachineSpec) -> str:
    """What a pod does that must go, be it an eviction, an upgrade or a spot machine's end.

    A worker says so to the cluster first: training saves, replicas are replaced, and nothing new is placed there. Ray
    ends an idle node at once, which its agent's silence tells; else the time is used to the end.
    """
    stop = f"ray stop --grace-period {END_S // 2}"
    if group == HEAD:
        return stop
    seconds = max(1, grace_seconds(rendering.spec.kubernetes, group, machine) - END_S)
    drain = (
        'ray drain-node --address "$RAY_ADDRESS" --reason DRAIN_NODE_REASON_PREEMPTION '
        f"--reason-message '{TOLD}' --deadline-remaining-seconds {seconds}"
    )
    alive = f"(: < /dev/tcp/127.0.0.1/{AGENT_PORT}) 2>/dev/null"
    return f"{drain} && for _ in $(seq {seconds}); do {alive} || break; sleep 1; done; {stop}"
