"""The Kubernetes part of a description: where pods run, who may reach them, and how long a job's cluster stays."""
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
    """Pods that may connect to the cluster's pods."""

    namespace: Name | None = None
    """The namespace of these pods; by default the cluster's own."""
    pods: Selector = {}
    """Labels of these pods; without any, all pods of the namespace."""


class NetworkSpec(Node):
    """Who may connect to the cluster's pods, besides themselves and the operator. By default nobody may."""

    operator_namespace: Name | None = None
    """Namespace of KubeRay's operator; by default pods with its labels in any namespace may connect."""
    operator_pods: Selector = {"app.kubernetes.io/name": "kuberay-operator"}
    """Labels of the operator's pods, as its Helm chart gives them."""
    jobs_from: tuple[PeerSpec, ...] = ()
    """Who may submit jobs and open the dashboard; the token is required all the same."""
    serve_from: tuple[PeerSpec, ...] = ()
    """Who may call the embedding API, e.g. an ingress controller."""
    metrics_from: tuple[PeerSpec, ...] = ()
    """Who may read Ray's metrics, which require no token, e.g. Prometheus."""


class ServiceAccountSpec(Node):
    """The identity of the pods, with which a cloud grants them access to a bucket without a key."""

    name: ResourceName
    create: bool = False
    """Whether the account is rendered with the rest; otherwise it must exist."""
    annotations: Annotations = {}
    """Annotations of a created account, e.g. ``eks.amazonaws.com/role-arn``, ``iam.gke.io/gcp-service-account``."""

    @model_validator(mode="after")
    def _annotated_if_made(self) -> Self:
        if self.annotations and not self.create:
            raise ValueError(f"service account {self.name!r}: annotations need create: true; it exists already")
        return self


class RedisSpec(Node):
    """A Redis that stores the head's state, so that a service outlives its head."""

    address: Annotated[str, Field(pattern=r"^(rediss?://)?[A-Za-z0-9.-]+:[0-9]{1,5}$")]
    """``host:port``, or ``rediss://host:port`` with TLS."""
    password_secret: ResourceName | None = None
    password_key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$")] = "password"  # noqa: S105 (the name of a key)

    @model_validator(mode="before")
    @classmethod
    def _no_password(cls, values: Any) -> Any:
        """Check for a password before any other validation, whose error would repeat it."""
        if isinstance(values, dict) and PASSWORD_IN_URL.search(str(values.get("address"))):
            raise ValueError("address holds a password: write host:port, and name its Secret under password_secret")
        return values


class JobSpec(Node):
    """Retries, time limits and lifetime of a job's cluster."""

    retries: Count = 1
    """How many more clusters are tried after a failure; raylens' commands resume from their checkpoints."""
    start_minutes: Annotated[Positive, Field(le=MOST // 60)] = 60
    """Minutes within which the job must run; after that, the attempt has failed."""
    deadline_hours: Annotated[float, Field(gt=0, le=MOST // 3600)] | None = None
    """Time limit of the job in hours; by default there is none."""
    keep_minutes: KeepMinutes = 5
    """Minutes that the cluster of a successful job stays."""
    keep_failed_minutes: KeepMinutes = 60
    """Minutes that the cluster of a failed job stays for inspection; idle nodes leave earlier."""


class KubernetesSpec(Node):
    """Everything about the cluster that only Kubernetes needs."""

    namespace: Name | None = None
    """Namespace of all objects; by default the one that kubectl uses."""
    cloud: Cloud = "other"
    """The cloud, which determines the labels and taints of spot machines and of GPU types."""
    token_secret: ResourceName | None = None
    """The Secret whose key ``auth_token`` is Ray's token; by default ``<name>-token``. It must exist."""
    pull_secrets: tuple[ResourceName, ...] = ()
    """Secrets with which images are pulled."""
    service_account: ServiceAccountSpec | None = None
    host_paths: bool = False
    """Whether volumes may be folders of the host machines."""
    spot_selector: Selector = {}
    """Labels of spot machines, where ``cloud`` is ``other``."""
    spot_tolerations: tuple[TolerationSpec, ...] = ()
    """Taints of spot machines, where ``cloud`` is ``other``."""
    labels: Labels = {}
    """Labels of everything that is rendered, e.g. the label of a queue."""
    network: NetworkSpec = NetworkSpec()
    redis: RedisSpec | None = None
    job: JobSpec = JobSpec()
