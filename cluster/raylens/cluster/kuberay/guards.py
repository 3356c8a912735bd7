"""What stands around the pods: who may reach them, how many may be disrupted at a time, who they are."""

from collections.abc import Iterable

from raylens.cluster.description import GroupSpec, PeerSpec
from raylens.cluster.kuberay.names import DASHBOARD_PORT, HEAD, METRICS_PORT, Manifest, Rendering
from raylens.placement import GROUP_LABEL, Group

__all__ = ["disruption_budgets", "job_files", "network_policies", "service_account"]

NAMESPACE_LABEL = "kubernetes.io/metadata.name"
"""Which Kubernetes itself gives every namespace."""


def network_policies(rendering: Rendering) -> list[Manifest]:
    """Nobody reaches the pods but themselves, KubeRay's operator, and who is named.

    KubeRay can make such policies as well, behind a switch that is off by default; then it refuses the cluster.
    """
    network = rendering.spec.kubernetes.network
    namespace = PeerSpec(namespace=network.operator_namespace, pods=network.operator_pods)
    operator = _peer(namespace) if network.operator_namespace else {"namespaceSelector": {}, **_pods(namespace)}
    dashboard = [operator, *map(_peer, network.jobs_from)]
    found = [
        _policy(rendering, "inside", {}, [{"podSelector": {"matchLabels": rendering.selector()}}], None),
        _policy(rendering, "dashboard", {GROUP_LABEL: HEAD}, dashboard, DASHBOARD_PORT),
    ]
    if network.serve_from and rendering.serve_port is not None:
        callers = list(map(_peer, network.serve_from))
        found.append(_policy(rendering, "serve", {GROUP_LABEL: "serve"}, callers, rendering.serve_port))
    if network.metrics_from:
        found.append(_policy(rendering, "metrics", {}, list(map(_peer, network.metrics_from)), METRICS_PORT))
    return found


def disruption_budgets(rendering: Rendering) -> list[Manifest]:
    """Of the head and of groups whose loss is felt; decoding is done again elsewhere.

    For pods of a custom resource Kubernetes takes a number that must stay, and no share or number that may go.
    """
    stays: dict[Group | str, int] = {HEAD: 1}
    for name, group in rendering.groups.items():
        stays |= {name: least} if (least := _least(name, group)) else {}
    return [_budget(rendering, name, least) for name, least in stays.items()]


def service_account(rendering: Rendering) -> list[Manifest]:
    """The pods' identity, where the description asks for one."""
    account = rendering.spec.kubernetes.service_account
    if account is None or not account.create:
        return []
    metadata = rendering.metadata(account.name, account.annotations)
    return [{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}]


def job_files(rendering: Rendering) -> list[Manifest]:
    """The files that a job's command names."""
    if not rendering.files:
        return []
    metadata = rendering.metadata(f"{rendering.name}-files")
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(rendering.files)}]


def _least(name: Group, group: GroupSpec) -> int:
    """Nodes of a group that must stay: of serving all but one, of training those that a run cannot do without."""
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
            # What is broken already does not keep a machine from being drained.
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
    found = _pods(peer)
    if peer.namespace:
        found["namespaceSelector"] = {"matchLabels": {NAMESPACE_LABEL: peer.namespace}}
    return found or {"podSelector": {}}


def _pods(peer: PeerSpec) -> Manifest:
    return {"podSelector": {"matchLabels": peer.pods}} if peer.pods else {}
