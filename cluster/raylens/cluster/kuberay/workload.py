"""A job with a cluster of its own, and a service with one."""

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
"""After an upgrade, for requests that are still on their way."""


def ray_cluster(rendering: Rendering) -> Manifest:
    """A cluster that stays until it is deleted."""
    return _object(rendering, "RayCluster") | {"spec": cluster_spec(rendering, redis=True)}


def ray_job(rendering: Rendering, command: Sequence[str]) -> Manifest:
    """A cluster that comes for one command and goes after it.

    Raises:
        ConfigError: the command cannot be said in a manifest, or the description cannot be rendered.
    """
    job = rendering.spec.kubernetes.job
    found: Manifest = {
        "entrypoint": _entrypoint(command),
        "submissionMode": "K8sJobMode",
        "backoffLimit": job.retries,
        "preRunningDeadlineSeconds": 60 * job.start_minutes,
    }
    if job.deadline_hours:
        found["activeDeadlineSeconds"] = max(1, round(3600 * job.deadline_hours))
    found["deletionStrategy"] = {"deletionRules": _deletion_rules(job)}
    found["submitterPodTemplate"] = _submitter(rendering)
    return _object(rendering, "RayJob") | {"spec": found | {"rayClusterSpec": cluster_spec(rendering)}}


def ray_service(rendering: Rendering) -> Manifest:
    """A cluster that serves. A changed image or node makes a new one beside it, which takes over when it is ready."""
    assert rendering.serving is not None
    found: Manifest = {
        "serveConfigV2": rendering.serving.config,
        # The head coordinates; what comes in goes to the nodes that compute.
        "excludeHeadPodFromServeSvc": True,
        "upgradeStrategy": {"type": "NewCluster"},
        "rayClusterDeletionDelaySeconds": OLD_CLUSTER_STAYS_S,
        "rayClusterConfig": cluster_spec(rendering, redis=True),
    }
    return _object(rendering, "RayService") | {"spec": found}


def _object(rendering: Rendering, kind: str) -> Manifest:
    return {"apiVersion": RAY_API, "kind": kind, "metadata": rendering.metadata(annotations=rendering.origin())}


def _entrypoint(command: Sequence[str]) -> str:
    """One line, which two shells read in turn: the submitter's, whose words Ray quotes again, and the head's."""
    for word in command:
        if "$(" in word or "\n" in word:
            raise ConfigError(
                f"the command has {word!r}, which Kubernetes and the shells on its way would change; put such a value "
                "into a file of settings"
            )
    return shlex.join(command)


def _deletion_rules(job: JobSpec) -> list[Manifest]:
    """The cluster goes in any case; the record of the job stays until it is deleted."""
    ended = {"jobStatus": "SUCCEEDED"}, {"jobStatus": "FAILED"}, {"jobDeploymentStatus": "Failed"}
    minutes = job.keep_minutes, job.keep_failed_minutes, job.keep_failed_minutes
    return [
        {"policy": "DeleteCluster", "condition": {**how, "ttlSeconds": 60 * after}}
        for how, after in zip(ended, minutes, strict=True)
    ]


def _submitter(rendering: Rendering) -> Manifest:
    """The pod that hands the command to the cluster and prints its log; KubeRay adds the command and the token."""
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
