"""What Kubernetes would refuse of pods and of objects of its own kinds, and no schema at hand says."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

QUANTITY = re.compile(r"([0-9.]+)([kMGT]i?|m)?")
FACTORS = {None: 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
FACTORS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
"""Which the restricted profile of the Pod Security Standards allows."""
KINDS: dict[str, tuple[str, set[str]]] = {
    "NetworkPolicy": ("networking.k8s.io/v1", {"podSelector", "policyTypes", "ingress"}),
    "PodDisruptionBudget": ("policy/v1", {"minAvailable", "selector", "unhealthyPodEvictionPolicy"}),
    "ServiceAccount": ("v1", set()),
    "ConfigMap": ("v1", set()),
}


def amount(text: str) -> float:
    found = QUANTITY.fullmatch(text)
    assert found is not None, text
    return float(found[1]) * FACTORS[found[2]]


def pod_errors(pod: dict[str, Any]) -> Iterator[str]:
    """Names that stand twice, mounts of nothing, more asked for than allowed."""
    volumes = [one["name"] for one in pod.get("volumes", ())]
    yield from _twice("volumes", volumes)
    for container in pod["containers"]:
        mounts = container.get("volumeMounts", [])
        yield from (f"no volume {name}" for name in {one["name"] for one in mounts} - set(volumes))
        yield from _twice("paths", [one["mountPath"] for one in mounts])
        yield from _twice("variables", [one["name"] for one in container.get("env", ())])
        yield from (f"port {one['name']}" for one in container.get("ports", ()) if len(one["name"]) > 15)
        asked = container["resources"]["requests"]
        limits = container["resources"]["limits"]
        yield from (f"{name} asked" for name, limit in limits.items() if amount(asked[name]) > amount(limit))


def restricted_errors(pod: dict[str, Any]) -> Iterator[str]:
    """What the restricted profile of the Pod Security Standards refuses."""
    sources = {source for volume in pod.get("volumes", ()) for source in set(volume) - {"name"}}
    yield from (f"volume {source}" for source in sources - RESTRICTED_VOLUMES)
    yield from (name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name))
    if pod["securityContext"]["runAsUser"] == 0 or not pod["securityContext"]["runAsNonRoot"]:
        yield "root"
    for container in pod["containers"]:
        security = container["securityContext"]
        if security["allowPrivilegeEscalation"] is not False or security["capabilities"] != {"drop": ["ALL"]}:
            yield "privileges"
        if security["seccompProfile"]["type"] != "RuntimeDefault":
            yield "seccomp"
        yield from ("hostPort" for port in container.get("ports", ()) if "hostPort" in port)


def object_errors(manifest: dict[str, Any]) -> Iterator[str]:
    """Of kinds whose schemas are not at hand: their keys, their names, and rules that let everybody in."""
    version, allowed = KINDS[manifest["kind"]]
    if manifest["apiVersion"] != version:
        yield manifest["apiVersion"]
    yield from (f"unknown key {key}" for key in set(manifest.get("spec", {})) - allowed)
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", manifest["metadata"]["name"]):
        yield manifest["metadata"]["name"]
    for rule in manifest.get("spec", {}).get("ingress", ()):
        if not rule["from"] or any(not peer for peer in rule["from"]):
            yield "an empty peer lets everybody in"


def _twice(what: str, names: Sequence[str]) -> Iterator[str]:
    yield from (f"{what}: {name} stands there twice" for name in sorted(set(names)) if names.count(name) > 1)
