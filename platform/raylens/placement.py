"""The labels of a cluster's nodes, by which work is placed on the machines that are meant for it.

Every node of a cluster that raylens describes has a label with its group: ``raylens.io/group`` is ``head``, ``decode``,
``train`` or ``serve``. The head's labels also announce which groups there are (``raylens.io/train: "true"``) and how
large each may become (``raylens.io/train-nodes``, ``-cpus`` and ``-gpus``, the latter two of one node): an autoscaler
launches a node only on request, and a run must know beforehand whether it will ever fit.
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
    """The largest size of a group of nodes."""

    nodes: int
    cpus: float
    """The CPUs of one node of the group."""
    gpus: float = 0
    """The GPUs of one node of the group."""


@dataclass(frozen=True)
class Placement:
    """The groups that a cluster's head announces; a cluster that raylens did not describe has none."""

    groups: Mapping[Group, GroupSize | None] = field(default_factory=dict)
    """The size of each group; None if it is not announced."""
    subclusters: bool = False
    """Whether the cluster's nodes have the label `SUBCLUSTER_LABEL`."""

    @classmethod
    def read(cls, labels: Iterable[Mapping[str, str]]) -> Self:
        """Read the groups from the labels of a cluster's nodes."""
        every = list(labels)
        groups = {
            group: _size(group, node) for node in every for group in GROUPS if node.get(_announcement(group)) == YES
        }
        return cls(groups, any(node.get(SUBCLUSTER_LABEL) == HEAD for node in every))

    def selector(self, group: Group) -> dict[str, str]:
        """Return the labels that work requires of its node: those of its group if the cluster has it, else none."""
        if group not in self.groups:
            return {}
        marked = self.subclusters and group != "train"
        own: dict[str, str] = {GROUP_LABEL: group}
        return own | {SUBCLUSTER_LABEL: group} if marked else own


def node_labels(group: Group | Literal["head"], groups: Mapping[Group, GroupSize]) -> dict[str, str]:
    """Return all labels of a node.

    Args:
        group: the group of the node.
        groups: all groups of the cluster except the head, including groups that may have no node.
    """
    labels: dict[str, str] = {GROUP_LABEL: group}
    if {"decode", "train"} <= set(groups) and group != "train":
        labels[SUBCLUSTER_LABEL] = group
    if group == HEAD:
        for name, size in groups.items():
            numbers = {"nodes": size.nodes, "cpus": size.cpus, "gpus": size.gpus}
            labels |= {_announcement(name): YES} | {
                _part(name, part): f"{value:.12g}" for part, value in numbers.items()
            }
    return labels


def _announcement(group: Group) -> str:
    return f"raylens.io/{group}"


def _part(group: Group, name: str) -> str:
    return f"raylens.io/{group}-{name}"


def _size(group: Group, labels: Mapping[str, str]) -> GroupSize | None:
    try:
        nodes, cpus, gpus = (float(labels[_part(group, name)]) for name in ("nodes", "cpus", "gpus"))
    except (KeyError, ValueError):
        return None  # labelled by hand: only the live nodes count
    return GroupSize(int(nodes), cpus, gpus)
