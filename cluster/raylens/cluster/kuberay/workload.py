"""The objects of KubeRay: a cluster, a job with its own cluster, and a service with its own cluster."""

import shlex
from collections.abc import Sequence

from raylens.cluster.description import JobSpec
from raylens.cluster.kuberay.cluster import cluster_spec
from raylens.cluster.kuberay.container import CONTAINER_SECURITY
from raylens.cluster.kuberay.names import HEAD, RAY_API, Manifest, Rendering
from raylens.cluster.kuberay.pod import POD_SECURITY, scheduling
from raylens.errors import ConfigError

__all__ = ["ray_cluster", "ray_job", "ray_service"]

SUBMITTER_SIZE: Manifest = {"cpu": "500m", "memory": "1Gi"}
OLD_CLUSTER_STAYS_S = 120
"""Seconds that the old cluster stays after an upgrade, for requests that are still running."""


def ray_cluster(rendering: Rendering) -> Manifest:
    """Return a cluster that stays until it is deleted."""
    return _object(rendering, "RayCluster") | {"spec": cluster_spec(rendering, redis=True)}


def ray_job(rendering: Rendering, command: Sequence[str]) -> Manifest:
    """Return a job whose cluster is created for one command and deleted after it.

    Raises:
        ConfigError: the command cannot be written into a manifest, or the description cannot be rendered.
    """
    job = rendering.spec.kubernetes.job
    manifest: Manifest = {
        "entrypoint": _entrypoint(command),
        "submissionMode": "K8sJobMode",
        "backoffLimit": job.retries,
        "preRunningDeadlineSeconds": 60 * job.start_minutes,
    }
    if job.deadline_hours:
        manifest["activeDeadlineSeconds"] = max(1, round(3600 * job.deadline_hours))
    manifest["deletionStrategy"] = {"deletionRules": _deletion_rules(job)}
    manifest["submitterPodTemplate"] = _submitter(rendering)
    return _object(rendering, "RayJob") | {"spec": manifest | {"rayClusterSpec": cluster_spec(rendering)}}


def ray_service(rendering: Rendering) -> Manifest:
    """Return a service with its cluster; a change of image or nodes creates a second cluster, which then takes over."""
    assert rendering.serving is not None
    manifest: Manifest = {
        "serveConfigV2": rendering.serving.config,
        # The head coordinates; requests go to the nodes that compute.
        "excludeHeadPodFromServeSvc": True,
        "upgradeStrategy": {"type": "NewCluster"},
        "rayClusterDeletionDelaySeconds": OLD_CLUSTER_STAYS_S,
        "rayClusterConfig": cluster_spec(rendering, redis=True),
    }
    return _object(rendering, "RayService") | {"spec": manifest}


def _object(rendering: Rendering, kind: str) -> Manifest:
    return {"apiVersion": RAY_API, "kind": kind, "metadata": rendering.metadata(annotations=rendering.origin())}


def _entrypoint(command: Sequence[str]) -> str:
    """Return the command as one line for two shells: the submitter's, whose words Ray quotes again, and the head's."""
    for word in command:
        if "$(" in word or "\n" in word:
            raise ConfigError(
                f"the command has {word!r}, which Kubernetes or a shell would change; put such a value into a "
                "configuration file"
            )
    return shlex.join(command)


def _deletion_rules(job: JobSpec) -> list[Manifest]:
    """Return rules that delete the cluster in any case; the record of the job stays until somebody deletes it."""
    ended = {"jobStatus": "SUCCEEDED"}, {"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"}
    minutes = job.keep_minutes, job.keep_failed_minutes, job.keep_failed_minutes
    return [
        {"policy": "DeleteCluster", "condition": {**how, "ttlSeconds": 60 * after}}
        for how, after in zip(ended, minutes, strict=True)
    ]


def _submitter(rendering: Rendering) -> Manifest:
    """Return the pod that submits the command and prints its log; KubeRay adds the command and the token."""
    head = rendering.spec.head
    container = {
        "name": "ray-job-submitter",
        "image": rendering.spec.image_of(head),
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": SUBMITTER_SIZE, "limits": {"memory": SUBMITTER_SIZE["memory"]}},
        "securityContext": CONTAINER_SECURITY,
    }
    return {
        "metadata": {"labels": rendering.selector()},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": POD_SECURITY,
            **scheduling(rendering, HEAD, head),
            "containers": [container],
        },
    }
