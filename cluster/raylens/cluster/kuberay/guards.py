"""The objects around the pods: network policies, disruption budgets, the service account, and a job's files."""

from collections.abc import Iterable

from raylens.cluster.description import GroupSpec, PeerSpec
from raylens.cluster.kuberay.names import DASHBOARD_PORT, HEAD, METRICS_PORT, Manifest, Rendering
from raylens.config.placement import GROUP_LABEL, Group

__all__ = ["disruption_budgets", "job_files", "network_policies", "service_account"]

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""The label with its name, which Kubernetes gives every namespace."""


def network_policies(rendering: Rendering) -> list[Manifest]:
    """Return policies that admit only the pods themselves, KubeRay's operator, and the peers in the description.

    KubeRay can create such policies itself, but the feature is off by default, and then it refuses the cluster.
    """
    network = rendering.spec.kubernetes.network
    namespace = PeerSpec(namespace=network.operator_namespace, pods=network.operator_pods)
    operator = _peer(namespace) if network.operator_namespace else {"namespaceSelector": {}, **_pods(namespace)}
    dashboard = [operator, *map(_peer, network.jobs_from)]
    policies = [
        _policy(rendering, "inside", {}, [{"podSelector": {"matchLabels": rendering.selector()}}], None),
        _policy(rendering, "dashboard", {GROUP_LABEL: HEAD}, dashboard, DASHBOARD_PORT),
    ]
    if network.serve_from and rendering.serve_port is not None:
        callers = list(map(_peer, network.serve_from))
        policies.append(_policy(rendering, "serve", {GROUP_LABEL: "serve"}, callers, rendering.serve_port))
    if network.metrics_from:
        policies.append(_policy(rendering, "metrics", {}, list(map(_peer, network.metrics_from)), METRICS_PORT))
    return policies


def disruption_budgets(rendering: Rendering) -> list[Manifest]:
    """Return the budgets of the head and of groups whose loss hurts; decoding is repeated elsewhere.

    For pods of a custom resource, Kubernetes accepts only the number of pods that must stay.
    """
    stays: dict[Group | str, int] = {HEAD: 1}
    for name, group in rendering.groups.items():
        stays |= {name: least} if (least := _least(name, group)) else {}
    return [_budget(rendering, name, least) for name, least in stays.items()]


def service_account(rendering: Rendering) -> list[Manifest]:
    """Return the service account of the pods, if the description asks to create it."""
    account = rendering.spec.kubernetes.service_account
    if account is None or not account.create:
        return []
    metadata = rendering.metadata(account.name, account.annotations)
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]


def job_files(rendering: Rendering) -> list[Manifest]:
    """Return the ConfigMap of the files that a job's command names, if there are any."""
    if not rendering.files:
        return []
    metadata = rendering.metadata(f"{rendering.name}-files")
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(rendering.files)}]


def _least(name: Group, group: GroupSpec) -> int:
    """Return how many nodes of a group must stay: all but one that serve, and the minimum of those that train."""
    if name == "serve":
        return max(1, group.min_nodes - 1)
    return group.min_nodes if name == "train" else 0


def _budget(rendering: Rendering, group: str, least: int) -> Manifest:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": rendering.metadata(f"{rendering.name}-{group}"),
        "spec": {
            "minAvailable": least,
            "selector": {"matchLabels": rendering.selector(**{GROUP_LABEL: group})},
            # Pods that are broken already do not keep a machine from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _policy(
    rendering: Rendering, name: str, pods: dict[str, str], peers: Iterable[Manifest], port: int | None
) -> Manifest:
    rule: Manifest = {"from": list(peers)}
    if port is not None:
        rule["ports"] = [{"protocol": "TCP", "port": port}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": rendering.metadata(f"{rendering.name}-{name}"),
        "spec": {
            "podSelector": {"matchLabels": rendering.selector(**pods)},
            "policyTypes": ["Ingress"],
            "ingress": [rule],
        },
    }


def _peer(peer: PeerSpec) -> Manifest:
    selector = _pods(peer)
    if peer.namespace:
        selector["namespaceSelector"] = {"matchLabels": {NAMESPACE_LABEL: peer.namespace}}
    return selector or {"podSelector": {}}


def _pods(peer: PeerSpec) -> Manifest:
    return {"podSelector": {"matchLabels": peer.pods}} if peer.pods else {}
