"""Labels of a cluster's nodes, by which work finds the machines that are meant for it.

Every node of a cluster that raylens describes says which group it is of: ``raylens.io/group`` is ``head``, ``decode``,
``train`` or ``serve``. The head says besides which groups there are (``raylens.io/train: "true"``) and how large each
may become (``raylens.io/train-nodes``, ``-cpus`` and ``-gpus``, the latter two of one node): an autoscaler makes a node
only when something asks for it, and a run is to know before whether it ever fits.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Self, get_args

__all__ = ["GROUPS", "GROUP_LABEL", "HEAD", "SUBCLUSTER_LABEL", "Group", "GroupSize", "Placement", "node_labels"]

Group = Literal["decode", "train", "serve"]
"""The purpose of a group of nodes."""
GROUPS: tuple[Group, ...] = get_args(Group)
GROUP_LABEL = "raylens.io/group"
"""The label on every node whose value is ``head``, ``decode``, ``train`` or ``serve``."""
SUBCLUSTER_LABEL = "ray-subcluster"
"""The label by which Ray Data and Ray Train select the nodes whose resources they count (Ray 2.60). If decoding and
training have nodes of their own, all but the training nodes have it: Ray Data counts the nodes that its tasks select,
Ray Train those without it."""
HEAD: Literal["head"] = "head"
"""The value of `GROUP_LABEL` on the head."""
YES = "true"


@dataclass(frozen=True)
class GroupSize:
    """The most that a group of nodes may become."""

    nodes: int
    cpus: float
    """The CPUs of one node of the group."""
    gpus: float = 0
    """The GPUs of one node of the group."""


@dataclass(frozen=True)
class Placement:
    """The groups that a cluster has, as its head announces them; none on one that raylens did not describe."""

    groups: Mapping[Group, GroupSize | None] = field(default_factory=dict)
    """None where a group's size was not announced."""
    subclusters: bool = False
    """Whether the cluster's nodes have the label `SUBCLUSTER_LABEL`."""

    @classmethod
    def read(cls, labels: Iterable[Mapping[str, str]]) -> Self:
        """From the labels of a cluster's nodes."""
        every = list(labels)
        groups = {group: _size(group, one) for one in every for group in GROUPS if one.get(_announcement(group)) == YES}
        return cls(groups, any(one.get(SUBCLUSTER_LABEL) == HEAD for one in every))

    def selector(self, group: Group) -> dict[str, str]:
        """What work asks of the labels of its node: those of its group if the cluster has that, nothing otherwise."""
        if group not in self.groups:
            return {}
        marked = self.subclusters and group != "train"
        own: dict[str, str] = {GROUP_LABEL: group}
        return own | {SUBCLUSTER_LABEL: group} if marked else own


def node_labels(group: Group | Literal["head"], groups: Mapping[Group, GroupSize]) -> dict[str, str]:
    """All labels of a node.

    Args:
        group: that the node is of.
        groups: all those of the cluster beside the head, those that may have no node included.
    """
    labels: dict[str, str] = {GROUP_LABEL: group}
    if {"decode", "train"} <= set(groups) and group != "train":
        labels[SUBCLUSTER_LABEL] = group
    if group == HEAD:
        for one, size in groups.items():
            numbers = {"nodes": size.nodes, "cpus": size.cpus, "gpus": size.gpus}
            labels |= {_announcement(one): YES} | {_part(one, name): f"{value:.12g}" for name, value in numbers.items()}
    return labels


def _announcement(group: Group) -> str:
    return f"raylens.io/{group}"


def _part(group: Group, name: str) -> str:
    return f"raylens.io/{group}-{name}"


def _size(group: Group, labels: Mapping[str, str]) -> GroupSize | None:
    try:
        nodes, cpus, gpus = (float(labels[_part(group, name)]) for name in ("nodes", "cpus", "gpus"))
    except (KeyError, ValueError):
        return None  # labelled by hand: what is there is what counts
    return GroupSize(int(nodes), cpus, gpus)
