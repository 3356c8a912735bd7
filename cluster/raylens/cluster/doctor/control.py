"""Checks of the cluster as a whole: authentication, the state of the autoscaler, and the groups of its nodes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import CLUSTER, Finding
from raylens.config.placement import GROUP_LABEL, Placement

__all__ = ["judge_autoscaler", "judge_groups", "judge_tokens"]


def judge_tokens(nodes: Sequence[NodeFacts], asker: str, *, own: bool) -> Iterator[Finding]:
    """Yield a finding on whether Ray requires a token.

    Args:
        nodes: the facts of the cluster's nodes.
        asker: RAY_AUTH_MODE of this process.
        own: whether this process started the cluster.
    """
    check = "token"
    if own:
        yield Finding(check, CLUSTER, "ok", "the cluster of this command has a token of its own", short="own")
        return
    modes = {node.auth_mode or "unset" for node in nodes} | {asker or "unset"}
    if modes == {"token"}:
        yield Finding(check, CLUSTER, "ok", "RAY_AUTH_MODE=token on every node", short="token")
        return
    problem = f"RAY_AUTH_MODE is {', '.join(sorted(modes))}: whoever reaches the head's ports may run code on all nodes"
    advice = "start Ray everywhere with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (KubeRay: authOptions.mode: token)"
    yield Finding(check, CLUSTER, "warning", problem, advice, "none")


def judge_autoscaler(state: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a finding on the nodes that the autoscaler could not launch, or is launching.

    Args:
        state: ``seen``, whether there is an autoscaler, and lists of texts: ``coming``, ``failed``, ``infeasible``; or
            ``unknown``, the reason why the state is unknown.
    """
    check = "autoscaler"
    if "unknown" in state:
        advice = "run this on a node of the cluster, or as a job: `raylens doctor --cluster NAME`"
        yield Finding(check, CLUSTER, "warning", f"its state is unknown: {state['unknown']}", advice, "unknown")
    elif state["failed"]:
        advice = "check quotas, prices and the availability of these machines in the cloud"
        yield Finding(
            check, CLUSTER, "warning", f"could not be launched: {'; '.join(state['failed'])}", advice, "failing"
        )
    elif state["infeasible"]:
        advice = "find the job that requests them; it waits for ever"
        yield Finding(check, CLUSTER, "warning", f"requested and impossible: {'; '.join(state['infeasible'])}", advice)
    elif state["coming"]:
        yield Finding(check, CLUSTER, "ok", f"being launched: {'; '.join(state['coming'])}", short="launching")
    elif state["seen"]:
        yield Finding(check, CLUSTER, "ok", "nothing is requested beyond the existing nodes", short="idle")


def judge_groups(labels: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Yield a finding on the nodes of each announced group, and on nodes that belong to no group.

    Args:
        labels: the labels of each node, by its name.
    """
    check, placement = "groups", Placement.read(labels.values())
    if not placement.groups:
        return
    counts = {
        group: sum(placement.selector(group).items() <= own.items() for own in labels.values())
        for group in placement.groups
    }
    shown = ", ".join(
        f"{group} {counts[group]}{f' of at most {size.nodes}' if size else ''}"
        for group, size in placement.groups.items()
    )
    unlabelled = [name for name, own in labels.items() if GROUP_LABEL not in own]
    if unlabelled:
        advice = "label them (ray start --labels); without a label, no training and no decoding is placed there"
        problem = f"nodes of no group: {', '.join(unlabelled[:5])}; {shown}"
        yield Finding(check, CLUSTER, "warning", problem, advice, shown)
        return
    yield Finding(check, CLUSTER, "ok", f"nodes of each group: {shown}", short=shown)
