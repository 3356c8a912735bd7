"""The cluster as a whole: who may use it, what its autoscaler says, and which groups its nodes are of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raylens.cluster.doctor.facts import NodeFacts
from raylens.cluster.doctor.findings import CLUSTER, Finding
from raylens.placement import GROUP_LABEL, Placement

__all__ = ["judge_autoscaler", "judge_groups", "judge_tokens"]


def judge_tokens(nodes: Sequence[NodeFacts], asker: str, *, own: bool) -> Iterator[Finding]:
    """Whether Ray asks for a token.

    Args:
        nodes: of the cluster.
        asker: RAY_AUTH_MODE of this process.
        own: whether the cluster is this process's own.
    """
    check = "token"
    if own:
        yield Finding(check, CLUSTER, "ok", "a cluster of this command's own, with a token of its own", short="own")
        return
    modes = {node.auth_mode or "unset" for node in nodes} | {asker or "unset"}
    if modes == {"token"}:
        yield Finding(check, CLUSTER, "ok", "RAY_AUTH_MODE=token on every node", short="token")
        return
    found = f"RAY_AUTH_MODE is {', '.join(sorted(modes))}: whoever reaches the head's ports may run code on all nodes"
    advice = "start Ray everywhere with RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (KubeRay: authOptions.mode: token)"
    yield Finding(check, CLUSTER, "warning", found, advice, "none")


def judge_autoscaler(state: Mapping[str, Any]) -> Iterator[Finding]:
    """What could not be made, and what is being made.

    Args:
        state: ``seen``, whether there is an autoscaler, and lists of texts: ``coming``, ``failed``, ``infeasible``; or
            ``unknown``, why nothing is known.
    """
    check = "autoscaler"
    if "unknown" in state:
        advice = "run this on a node of the cluster, or as a job: `raylens doctor --cluster NAME`"
        yield Finding(check, CLUSTER, "warning", f"could not be asked: {state['unknown']}", advice, "unknown")
    elif state["failed"]:
        advice = "see quotas, prices and the availability of these machines in the cloud"
        yield Finding(check, CLUSTER, "warning", f"could not be made: {'; '.join(state['failed'])}", advice, "failing")
    elif state["infeasible"]:
        advice = "see which job asks for them; it waits for ever"
        yield Finding(check, CLUSTER, "warning", f"asked for and impossible: {'; '.join(state['infeasible'])}", advice)
    elif state["coming"]:
        yield Finding(check, CLUSTER, "ok", f"being made: {'; '.join(state['coming'])}", short="making nodes")
    elif state["seen"]:
        yield Finding(check, CLUSTER, "ok", "nothing is asked for beyond what there is", short="idle")


def judge_groups(labels: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Whether each group that the head announces has nodes, and whether all nodes are of a group; by a node's name."""
    check, placement = "groups", Placement.read(labels.values())
    if not placement.groups:
        return
    counts = {
        group: sum(placement.selector(group).items() <= one.items() for one in labels.values())
        for group in placement.groups
    }
    shown = ", ".join(
        f"{group} {counts[group]}{f' of at most {size.nodes}' if size else ''}"
        for group, size in placement.groups.items()
    )
    strangers = [name for name, one in labels.items() if GROUP_LABEL not in one]
    if strangers:
        advice = "label them (ray start --labels), or no training and no decoding is placed there"
        found = f"nodes of no group: {', '.join(strangers[:5])}; {shown}"
        yield Finding(check, CLUSTER, "warning", found, advice, shown)
        return
    yield Finding(check, CLUSTER, "ok", f"nodes of each group: {shown}", short=shown)
