"""What an API server and KubeRay's operator would refuse of a manifest, without either of them.

The schemas of the custom resources lie in `crds`, with where they are from.
"""

import gzip
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

CRDS = Path(__file__).with_name("crds")
FILES = {"RayCluster": "rayclusters", "RayJob": "rayjobs", "RayService": "rayservices"}
INTEGERS = {"int32": 2**31, "int64": 2**63}
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LONGEST = {"RayCluster": 53, "RayJob": 47, "RayService": 47}
EMBEDDED = {"RayCluster": (), "RayJob": ("rayClusterSpec",), "RayService": ("rayClusterConfig",)}


@cache
def schema(kind: str) -> dict[str, Any]:
    """The schema of a kind's version v1, as the custom resource definition has it."""
    with gzip.open(CRDS / f"ray.io_{FILES[kind]}.yaml.gz") as source:
        definition = yaml.load(source, Loader=yaml.CSafeLoader)
    [version] = [one for one in definition["spec"]["versions"] if one["name"] == "v1"]
    found: dict[str, Any] = version["schema"]["openAPIV3Schema"]
    return found


@cache
def validator(kind: str) -> jsonschema.Draft7Validator:
    """Strict: what an API server would drop in silence, because it does not know it, is an error."""
    return jsonschema.Draft7Validator(strict(schema(kind), root=True))


def strict(node: Any, *, root: bool = False) -> Any:
    """JSON Schema of a structural schema of Kubernetes."""
    if isinstance(node, list):
        return [strict(one) for one in node]
    if not isinstance(node, dict):
        return node
    found = {key: strict(value) for key, value in node.items() if key not in ("properties", "default", "format")}
    if "properties" in node:
        found["properties"] = {name: strict(value) for name, value in node["properties"].items()}
        if not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in node:
            found["additionalProperties"] = False
    if node.get("type") == "integer" and node.get("format") in INTEGERS:
        bound = INTEGERS[node["format"]]
        found |= {"minimum": max(-bound, node.get("minimum", -bound)), "maximum": bound - 1}
    if root:  # of every object, and checked by the API server itself
        found["properties"]["metadata"] = {"type": "object", "required": ["name"]}
        found["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return found


def schema_errors(manifest: dict[str, Any]) -> list[str]:
    """What the schema says against a manifest, lists that are maps or sets included."""
    kind = manifest["kind"]
    found = [f"{error.json_path}: {error.message[:300]}" for error in validator(kind).iter_errors(manifest)]
    return found + list(_repeated(schema(kind), manifest, kind))


def _repeated(node: dict[str, Any], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for key, one in value.items():
            child = node.get("properties", {}).get(key) or node.get("additionalProperties")
            if isinstance(child, dict):
                yield from _repeated(child, one, f"{path}.{key}")
    if isinstance(value, list):
        item = node.get("items", {})
        for number, one in enumerate(value):
            yield from _repeated(item, one, f"{path}[{number}]")
        names = node.get("x-kubernetes-list-map-keys")
        if names:
            defaults = {name: item["properties"][name].get("default") for name in names}
            keys = [tuple(one.get(name, defaults[name]) for name in names) for one in value]
            yield from (f"{path}: {key} stands there twice" for key in set(keys) if keys.count(key) > 1)


def rules(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Rules of a schema that an API server evaluates as CEL, and no JSON Schema has."""
    if isinstance(node, dict):
        for rule in node.get("x-kubernetes-validations", ()):
            yield path, rule["rule"]
        for key, value in node.items():
            if key != "x-kubernetes-validations":
                yield from rules(value, path if key in ("properties", "items") else f"{path}.{key}")
    elif isinstance(node, list):
        for value in node:
            yield from rules(value, path)


def operator_errors(manifest: dict[str, Any]) -> Iterator[str]:
    """What the operator's own validation and the CEL rules refuse (KubeRay 1.7), as far as it can concern us."""
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    if len(name) > LONGEST[kind] or not DNS_1035.fullmatch(name):
        yield f"name {name!r} is too long, or no DNS-1035 label"
    cluster = manifest["spec"]
    for key in EMBEDDED[kind]:
        cluster = cluster[key]
    yield from _cluster_errors(cluster)
    if kind == "RayJob":
        yield from _job_errors(manifest["spec"])


def _cluster_errors(cluster: dict[str, Any]) -> Iterator[str]:
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    if cluster["authOptions"]["mode"] != "token" or tuple(map(int, cluster["rayVersion"].split("."))) < (2, 52, 0):
        yield "token authentication needs mode token and Ray 2.52"
    for gated in ("networkPolicy", "tlsOptions", "historyServerOptions", "suspend", "managedBy"):
        if gated in cluster:
            yield f"{gated} is behind a feature gate that is off by default, or immutable"
    if "name" in head.get("headService", {}):
        yield "headService.metadata.name should not be set"
    for name, group in (("head", head), *((one["groupName"], one) for one in workers)):
        yield from _group_errors(name, group, cluster)
    names = [one["groupName"] for one in workers]
    if len(names) != len(set(names)):
        yield "a group's name stands there twice"


def _group_errors(name: str, group: dict[str, Any], cluster: dict[str, Any]) -> Iterator[str]:
    parameters = group["rayStartParams"]
    if "labels" in parameters:
        yield f"{name}: rayStartParams.labels is not supported"
    if group.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(parameters):
        yield f"{name}: resources both in rayStartParams and in resources"
    if group.get("minReplicas", 0) > group.get("maxReplicas", 1) or group.get("minReplicas", 0) < 0:
        yield f"{name}: replicas out of order"
    if group.get("idleTimeoutSeconds", 0) < 0 or group.get("suspend"):
        yield f"{name}: idle timeout or suspend"
    pod = group["template"]["spec"]
    if pod.get("restartPolicy", "Never") != "Never":
        yield f"{name}: restartPolicy with autoscaler v2"
    variables = {one["name"] for one in pod["containers"][0]["env"]}
    if managed := variables & {"RAY_enable_autoscaler_v2", "RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"}:
        yield f"{name}: {managed} is the operator's"
    if {"redis-password", "redis-username"} & set(parameters):
        yield f"{name}: redis in rayStartParams"
    assert cluster["enableInTreeAutoscaling"]


def _job_errors(job: dict[str, Any]) -> Iterator[str]:
    strategy = job["deletionStrategy"]
    if {"onSuccess", "onFailure"} & set(strategy) or not strategy.get("deletionRules"):
        yield "deletionStrategy: either rules, or both policies"
    if job.get("shutdownAfterJobFinishes") or job.get("ttlSecondsAfterFinished"):
        yield "deletionRules exclude shutdownAfterJobFinishes and its time to live"
    yield from _rule_errors(strategy["deletionRules"])
    for positive in ("activeDeadlineSeconds", "preRunningDeadlineSeconds"):
        if job.get(positive, 1) <= 0:
            yield f"{positive} must be positive"
    if job["backoffLimit"] < 0 or job["submissionMode"] != "K8sJobMode":
        yield "backoffLimit is negative, or the mode does not take submitterPodTemplate"


def _rule_errors(deletions: list[dict[str, Any]]) -> Iterator[str]:
    keys = []
    for rule in deletions:
        condition = rule["condition"]
        if ("jobStatus" in condition) == ("jobDeploymentStatus" in condition):
            yield "a deletion condition has exactly one status"
        if rule["policy"] == "DeleteWorkers":
            yield "DeleteWorkers is not supported with autoscaling"
        keys.append((rule["policy"], condition.get("jobStatus"), condition.get("jobDeploymentStatus")))
    yield from (f"rule {key} stands there twice" for key in set(keys) if keys.count(key) > 1)
