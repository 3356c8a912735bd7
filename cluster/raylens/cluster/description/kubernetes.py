"""What a cluster is on Kubernetes: where its pods run, who may reach them, and what becomes of jobs."""
# ruff: noqa: RUF012 (pydantic copies mutable defaults)

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from raylens.cluster.description.fields import (
    MOST,
    Annotations,
    Count,
    Labels,
    Name,
    Positive,
    ResourceName,
    Selector,
)
from raylens.cluster.description.pods import TolerationSpec
from raylens.cluster.secret_scan import PASSWORD_IN_URL
from raylens.config import Node

__all__ = ["Cloud", "JobSpec", "KubernetesSpec", "NetworkSpec", "PeerSpec", "RedisSpec", "ServiceAccountSpec"]

Cloud = Literal["gke", "eks", "karpenter", "aks", "other"]
KeepMinutes = Annotated[int, Field(ge=0, le=MOST // 60)]


class PeerSpec(Node):
    """Pods that may come in."""

    namespace: Name | None = None
    """Theirs; unset, the cluster's own."""
    pods: Selector = {}
    """Labels that they have; without any, all pods of the namespace."""


class NetworkSpec(Node):
    """Who may reach the cluster's pods, besides themselves and the operator. By default nobody."""

    operator_namespace: Name | None = None
    """Where KubeRay's operator runs; unset, pods with its labels in any namespace."""
    operator_pods: Selector = {"app.kubernetes.io/name": "kuberay-operator"}
    """Labels of the operator's pods, as its Helm chart gives them."""
    jobs_from: tuple[PeerSpec, ...] = ()
    """Who may submit jobs and look at the dashboard; the token is asked for all the same."""
    serve_from: tuple[PeerSpec, ...] = ()
    """Who may call the embedding API, e.g. an ingress controller."""
    metrics_from: tuple[PeerSpec, ...] = ()
    """Who may read Ray's metrics, which ask for no token: Prometheus."""


class ServiceAccountSpec(Node):
    """The identity of the pods, by which a cloud lets them reach a bucket without any key."""

    name: ResourceName
    create: bool = False
    """Whether it is rendered with the rest; otherwise it must exist."""
    annotations: Annotations = {}
    """Of one that is created, e.g. ``eks.amazonaws.com/role-arn``, ``iam.gke.io/gcp-service-account``."""

    @model_validator(mode="after")
    def _annotated_if_made(self) -> Self:
        if self.annotations and not self.create:
            raise ValueError(f"service account {self.name!r}: annotations need create: true; it exists already")
        return self


class RedisSpec(Node):
    """A Redis in which the head keeps what it knows, so that a service outlives its head."""

    address: Annotated[str, Field(pattern=r"^(rediss?://)?[A-Za-z0-9.-]+:[0-9]{1,5}$")]
    """``host:port``, or ``rediss://host:port`` with TLS."""
    password_secret: ResourceName | None = None
    password_key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")] = "password"  # noqa: S105 (the name of a key)

    @model_validator(mode="before")
    @classmethod
    def _no_password(cls, values: Any) -> Any:
        """Looked at before anything else complains, which would repeat it."""
        if isinstance(values, dict) and PASSWORD_IN_URL.search(str(values.get("address"))):
            raise ValueError("address holds a password: write host:port, and name its Secret under password_secret")
        return values


class JobSpec(Node):
    """What becomes of a job's cluster."""

    retries: Count = 1
    """More clusters that are tried after one that failed. raylens' commands resume from what is saved."""
    start_minutes: Annotated[Positive, Field(le=MOST // 60)] = 60
    """Until the job runs; after that, the cluster cannot be had."""
    deadline_hours: Annotated[float, Field(gt=0, le=MOST // 3600)] | None = None
    """The longest that it may take; unset, no limit."""
    keep_minutes: KeepMinutes = 5
    """The cluster of a job that ended well stays so long."""
    keep_failed_minutes: KeepMinutes = 60
    """The same of one that failed, to look at it. Idle nodes leave before."""


class KubernetesSpec(Node):
    """Kubernetes' side of the cluster."""

    namespace: Name | None = None
    """Unset, the one that kubectl uses."""
    cloud: Cloud = "other"
    """Whose labels and taints spot machines and kinds of GPUs have."""
    token_secret: ResourceName | None = None
    """The Secret whose key ``auth_token`` is Ray's token; unset, ``<name>-token``. It must exist."""
    pull_secrets: tuple[ResourceName, ...] = ()
    """Secrets by which images are pulled."""
    service_account: ServiceAccountSpec | None = None
    host_paths: bool = False
    """Whether volumes may be folders of the machines."""
    spot_selector: Selector = {}
    """Labels of spot machines, where ``cloud`` is ``other``."""
    spot_tolerations: tuple[TolerationSpec, ...] = ()
    """Taints of spot machines, where ``cloud`` is ``other``."""
    labels: Labels = {}
    """Of everything that is rendered, e.g. a queue's."""
    network: NetworkSpec = NetworkSpec()
    redis: RedisSpec | None = None
    job: JobSpec = JobSpec()
