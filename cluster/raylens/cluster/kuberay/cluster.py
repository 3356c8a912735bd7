"""The specification of a cluster that RayCluster, RayJob and RayService have in common."""

import math

from raylens.cluster.description import GroupSpec
from raylens.cluster.kuberay.container import CONTAINER_SECURITY
from raylens.cluster.kuberay.names import HEAD, Manifest, Rendering
from raylens.cluster.kuberay.pod import pod_template
from raylens.config.placement import Group

__all__ = ["cluster_spec"]

AUTOSCALER_SIZE: Manifest = {"cpu": "500m", "memory": "1Gi"}
AUTH: Manifest = {"mode": "token"}


def cluster_spec(rendering: Rendering, *, redis: bool = False) -> Manifest:
    """Return the ``spec`` of a RayCluster.

    Args:
        rendering: the object that is rendered.
        redis: whether the head stores its state in Redis, if the description names one.

    Raises:
        ConfigError: Kubernetes cannot use a part of the description.
    """
    spec = rendering.spec
    manifest: Manifest = {
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
        manifest["gcsFaultToleranceOptions"] = _redis(rendering)
    return manifest | {
        "headGroupSpec": _head(rendering),
        "workerGroupSpecs": [_group(rendering, name, group) for name, group in rendering.groups.items()],
    }


def _head(rendering: Rendering) -> Manifest:
    head = rendering.spec.head
    return {
        "serviceType": "ClusterIP",
        "labels": rendering.node_labels(None, head),
        # No CPUs, so that Ray places no work on the node that coordinates the cluster and runs the drivers.
        "rayStartParams": {"num-cpus": "0", "object-store-memory": str(head.object_store_bytes)},
        "template": pod_template(rendering, HEAD, head),
    }


def _group(rendering: Rendering, name: Group, group: GroupSpec) -> Manifest:
    manifest: Manifest = {
        # No "replicas": the autoscaler sets them, and applying the file again would remove its nodes.
        "groupName": name,
        "minReplicas": group.min_nodes,
        "maxReplicas": group.max_nodes,
        "labels": rendering.node_labels(name, group),
        # KubeRay takes CPUs, GPUs and memory from the container's requests.
        "rayStartParams": {"object-store-memory": str(group.object_store_bytes)},
    }
    if group.idle_minutes:
        manifest["idleTimeoutSeconds"] = _seconds(group.idle_minutes)
    if group.resources:
        manifest["resources"] = {resource: str(amount) for resource, amount in group.resources.items()}
    return manifest | {"template": pod_template(rendering, name, group)}


def _redis(rendering: Rendering) -> Manifest:
    redis = rendering.spec.kubernetes.redis
    assert redis is not None
    manifest: Manifest = {"redisAddress": redis.address}
    if redis.password_secret:
        key = {"name": redis.password_secret, "key": redis.password_key}
        manifest["redisPassword"] = {"valueFrom": {"secretKeyRef": key}}
    return manifest


def _seconds(minutes: float) -> int:
    return math.ceil(60 * minutes)
