"""A cluster as KubeRay takes it: the part that RayCluster, RayJob and RayService have in common."""

import math

from raylens.cluster.description import GroupSpec
from raylens.cluster.kuberay.container import CONTAINER_SECURITY
from raylens.cluster.kuberay.names import HEAD, Manifest, Rendering
from raylens.cluster.kuberay.pod import pod_template
from raylens.placement import Group

__all__ = ["cluster_spec"]

AUTOSCALER_SIZE: Manifest = {"cpu": "500m", "memory": "1Gi"}
AUTH: Manifest = {"mode": "token"}


def cluster_spec(rendering: Rendering, *, redis: bool = False) -> Manifest:
    """The ``spec`` of a RayCluster.

    Args:
        rendering: what is rendered.
        redis: whether the head keeps what it knows in Redis, where one is named.

    Raises:
        ConfigError: something is described in a way that Kubernetes cannot use.
    """
    spec = rendering.spec
    found: Manifest = {
        "rayVersion": spec.ray_version,
        "authOptions": AUTH | {"secretName": spec.token_secret},
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "version": "v2",
            "idleTimeoutSeconds": _seconds(spec.idle_minutes),
            "imagePullPolicy": "IfNotPresent",
            "resources": {
                "requests": AUTOSCALER_SIZE,
                "limits": AUTOSCALER_SIZE,
            },
            "securityContext": CONTAINER_SECURITY,
        },
    }
    if redis and spec.kubernetes.redis:
        found["gcsFaultToleranceOptions"] = _redis(rendering)
    return found | {
        "headGroupSpec": _head(rendering),
        "workerGroupSpecs": [_group(rendering, name, group) for name, group in rendering.groups.items()],
    }


def _head(rendering: Rendering) -> Manifest:
    head = rendering.spec.head
    return {
        "serviceType": "ClusterIP",
        "labels": rendering.node_labels(None, head),
        # No CPUs: Ray places no work where the cluster is coordinated and the drivers run.
        "rayStartParams": {"num-cpus": "0", "object-store-memory": str(head.object_store_bytes)},
        "template": pod_template(rendering, HEAD, head),
    }


def _group(rendering: Rendering, name: Group, group: GroupSpec) -> Manifest:
    found: Manifest = {
        # No "replicas": they are the autoscaler's, and applying the file again would take its nodes away.
        "groupName": name,
        "minReplicas": group.min_nodes,
        "maxReplicas": group.max_nodes,
        "labels": rendering.node_labels(name, group),
        # CPUs, GPUs and memory KubeRay takes from what the container asks for.
        "rayStartParams": {"object-store-memory": str(group.object_store_bytes)},
    }
    if group.idle_minutes:
        found["idleTimeoutSeconds"] = _seconds(group.idle_minutes)
    if group.resources:
        found["resources"] = {resource: str(amount) for resource, amount in group.resources.items()}
    return found | {"template": pod_template(rendering, name, group)}


def _redis(rendering: Rendering) -> Manifest:
    redis = rendering.spec.kubernetes.redis
    assert redis is not None
    found: Manifest = {"redisAddress": redis.address}
    if redis.password_secret:
        key = {"name": redis.password_secret, "key": redis.password_key}
        found["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
    return found


def _seconds(minutes: float) -> int:
    return math.ceil(60 * minutes)
