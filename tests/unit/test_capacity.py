"""Whether bundles fit on nodes: against trying every way there is, and what is said to be missing."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.capacity import Ask, Node, shortage
from raylens.config import RunConfig, validated
from raylens.config.placement import GROUP_LABEL, SUBCLUSTER_LABEL, Group, GroupSize, Placement, node_labels
from raylens.train.ray.resources import resource_requests, shortage_text

GROUPS: dict[Group, GroupSize] = {"decode": GroupSize(4, 3.5), "train": GroupSize(8, 32, 8)}


def resources(most: int) -> st.SearchStrategy[dict[str, float]]:
    return st.fixed_dictionaries({"CPU": st.integers(0, most).map(float), "GPU": st.integers(0, 2).map(float)})


def labels() -> st.SearchStrategy[dict[str, str]]:
    return st.sampled_from([{}, {"group": "a"}, {"group": "b"}])


@st.composite
def nodes(draw: st.DrawFn) -> list[Node]:
    return [
        Node(f"n{number}", draw(resources(5)), draw(labels()), draw(st.integers(1, 2)))
        for number in range(draw(st.integers(0, 3)))
    ]


@st.composite
def asks(draw: st.DrawFn) -> list[Ask]:
    return [
        Ask(f"a{number}", draw(st.integers(1, 3)), draw(resources(3)), draw(labels()))
        for number in range(draw(st.integers(1, 2)))
    ]


def brute_force(asks: Sequence[Ask], nodes: Sequence[Node]) -> bool:
    """Every bundle on every node."""
    single = [node for node in nodes for _ in range(node.count)]
    bundles = [ask for ask in asks for _ in range(ask.count)]
    for places in itertools.product(range(len(single)), repeat=len(bundles)):
        left = [dict(node.resources) for node in single]
        fits = True
        for ask, place in zip(bundles, places, strict=True):
            fits &= all(single[place].labels.get(key) == value for key, value in ask.selector.items())
            for name, size in ask.each.items():
                left[place][name] = left[place].get(name, 0.0) - size
        if fits and all(value >= 0 for one in left for value in one.values()):
            return True
    return False


@given(asks(), nodes())
def test_bundles_fit_exactly_where_some_placement_of_them_does(asks: list[Ask], nodes: list[Node]) -> None:
    found = shortage(asks, nodes)
    assert (found is None) == brute_force(asks, nodes)
    if found is not None:
        assert found.wanted > found.most
        assert {ask.what for ask in found.asks} <= {ask.what for ask in asks}


def test_a_missing_resource_is_named_with_what_there_is() -> None:
    small = [Node("a", {"CPU": 8.0}), Node("b", {"CPU": 8.0, "GPU": 4.0})]
    found = shortage([Ask("worker", 8, {"CPU": 1, "GPU": 1})], small)
    assert found is not None
    assert (found.resource, found.wanted, found.most) == ("GPU", 8, 4)
    found = shortage([Ask("worker", 3, {"CPU": 5, "GPU": 0})], small)
    assert found is not None
    assert (found.resource, found.wanted, found.most) == (None, 3, 2)
    found = shortage([Ask("worker", 2, {"CPU": 8}), Ask("data", 1, {"CPU": 1})], [*small, Node("c", {"CPU": 0.5})])
    assert found is not None
    assert (found.resource, found.wanted, found.most) == ("CPU", 17, 16.5)
    found = shortage([Ask("worker", 2, {"CPU": 7}), Ask("data", 1, {"CPU": 2})], small)
    assert found is not None
    assert (found.resource, found.wanted, found.most, len(found.asks)) == (None, 3, 2, 2)


def test_many_nodes_of_a_group_are_counted_and_not_listed() -> None:
    nodes = [Node("group train", {"CPU": 32.0, "GPU": 8.0}, {}, 1_000_000)]
    assert shortage([Ask("worker", 4096, {"CPU": 4, "GPU": 1}), Ask("data", 1, {"CPU": 1})], nodes) is None


def test_a_node_says_its_group_and_the_head_which_there_are() -> None:
    head, decode, train = (node_labels(one, GROUPS) for one in ("head", "decode", "train"))
    placement = Placement.read([head, decode, train])
    assert placement.groups == GROUPS
    for group, labels in (("decode", decode), ("train", train)):
        selector = placement.selector(group)  # type: ignore[arg-type]
        assert selector == labels
        assert all(not selector.items() <= other.items() for other in (head, decode, train) if other != labels)
    assert placement.selector("serve") == {}
    # Ray Train counts on nodes without this label, Ray Data on those whose label its tasks ask for.
    assert SUBCLUSTER_LABEL not in train
    assert decode[SUBCLUSTER_LABEL] == "decode"


def test_one_group_alone_hides_no_nodes_from_ray() -> None:
    serve: dict[Group, GroupSize] = {"serve": GroupSize(2, 4)}
    for group in ("head", "serve"):
        assert SUBCLUSTER_LABEL not in node_labels(group, serve)
    assert Placement.read([node_labels("head", serve)]).selector("serve") == {GROUP_LABEL: "serve"}


def test_nothing_is_asked_for_where_no_head_announces_a_group() -> None:
    for labels in ({}, {GROUP_LABEL: "train"}, {"raylens.io/train": "false"}):
        assert Placement.read([labels, {"ray.io/node-group": "x"}]).selector("train") == {}
    by_hand = Placement.read([{"raylens.io/train": "true", "raylens.io/train-nodes": "many"}])
    assert by_hand.groups == {"train": None}


def config_of(**scale: object) -> RunConfig:
    return validated(RunConfig, {"name": "x", "global_batch": 48, "data": {"train": "d"}, "scale": scale})


@pytest.mark.parametrize(
    ("scale", "nodes", "text"),
    [
        (
            {"workers": 8, "gpus_per_worker": 1},
            [Node("a", {"CPU": 8.0, "GPU": 2.0}), Node("b", {"CPU": 8.0, "GPU": 2.0}), Node("c", {"CPU": 8.0})],
            "scale.workers = 8 with scale.gpus_per_worker = 1 need 8 GPUs, the cluster has 4 (a: 2, b: 2)",
        ),
        (
            {"workers": 4},
            [Node("a", {"CPU": 4.0})],
            "scale.workers = 4 with scale.cpus_per_worker = 1 need 5 CPUs (1 of them to read data), the cluster has 4",
        ),
        (
            {"workers": {"min": 2, "max": 4}, "cpus_per_worker": 3},
            [Node("a", {"CPU": 5.0}), Node("b", {"CPU": 2.0})],
            "scale.min_workers = 2 need 2 x 3 CPUs, each on one node, the cluster has room for 1 of these",
        ),
        (
            {"workers": 2, "cpus_per_worker": 2},
            [Node("a", {"CPU": 2.5}), Node("b", {"CPU": 2.5})],
            "scale.workers = 2 need 2 x 2 CPUs, each on one node, and 1 CPU to read data, the cluster has room for 2",
        ),
    ],
)
def test_what_is_missing_is_said_in_the_words_of_the_settings(
    scale: dict[str, object], nodes: list[Node], text: str
) -> None:
    config = config_of(**scale)
    found = shortage(resource_requests(config, Placement()), nodes)
    assert found is not None
    assert shortage_text(config, found).startswith(text)


def test_groups_are_named_where_work_keeps_to_them() -> None:
    config, placement = config_of(workers=2, gpus_per_worker=1), Placement.read([node_labels("head", GROUPS)])
    asks = resource_requests(config, placement)
    train = Node("group train", {"CPU": 32.0, "GPU": 1.0}, node_labels("train", GROUPS))
    decode = Node("group decode", {"CPU": 4.0}, node_labels("decode", GROUPS), 2)
    assert shortage(asks, [replace_gpus(train, 2.0), decode]) is None
    found = shortage(asks, [train, decode])
    assert found is not None
    assert shortage_text(config, found).endswith("need 2 GPUs, nodes of group train have 1")
    found = shortage(asks, [replace_gpus(train, 2.0)])
    assert found is not None
    assert shortage_text(config, found) == "reading data needs 1 CPU, nodes of group decode have 0"
    # Elsewhere, the CPUs of training nodes would do for decoding.
    assert shortage(resource_requests(config, Placement()), [replace_gpus(train, 2.0)]) is None


def replace_gpus(node: Node, gpus: float) -> Node:
    return Node(node.name, {**node.resources, "GPU": gpus}, node.labels)
