"""Descriptions of clusters: a small one, a full one, and any."""

from typing import Any

from hypothesis import strategies as st

from raylens.cluster.description import ClusterSpec
from raylens.config import validated

SMALL: dict[str, Any] = {
    "name": "small",
    "image": "example.org/raylens:0.1.0-cpu",
    "ray_version": "2.60.0",
    "head": {"cpus": 2, "memory": "8Gi"},
    "train": {"max_nodes": 2, "cpus": 4, "memory": "16Gi"},
}
FULL: dict[str, Any] = {
    "name": "pets",
    "image": "example.org/raylens:0.1.0-cpu",
    "ray_version": "2.60.0",
    "head": {
        "cpus": 4,
        "memory": "16Gi",
        "shared_memory": "4Gi",
        "object_store": "3Gi",
        "grace_s": 90,
        "priority_class": "important",
        "env": {"OMP_NUM_THREADS": "2"},
        "tolerations": [{"key": "dedicated", "value": "heads", "effect": "NoSchedule"}],
    },
    "decode": {
        "max_nodes": 8,
        "cpus": 16,
        "memory": "64Gi",
        "spot": True,
        "idle_minutes": 2,
        "volumes": [{"name": "cache", "path": "/cache", "empty": "100Gi"}],
    },
    "train": {
        "min_nodes": 2,
        "max_nodes": 4,
        "cpus": 32,
        "memory": "256Gi",
        "shared_memory": "64Gi",
        "scratch": "200Gi",
        "image": f"example.org/raylens@sha256:{'0a' * 32}",
        "gpus": 8,
        "gpu_kind": "nvidia-h100-80gb",
        "labels": {"example.org/rack": "7"},
        "resources": {"nvme": 2},
        "annotations": {"example.org/note": "costly"},
        "node_selector": {"example.org/pool": "gpu"},
    },
    "serve": {"min_nodes": 3, "max_nodes": 6, "cpus": 8, "memory": "32Gi"},
    "idle_minutes": 7.5,
    "env": {"AWS_REGION": "eu-central-1", "RAY_DEDUP_LOGS": "0"},
    "credentials": [
        {"secret": "pets-s3", "keys": {"AWS_ACCESS_KEY_ID": "access", "AWS_SECRET_ACCESS_KEY": "secret"}},
        {"secret": "pets-tracking"},
    ],
    "volumes": [
        {"name": "models", "path": "/models", "claim": "pets-models", "read_only": True},
        {"name": "api-keys", "path": "/etc/raylens/keys", "secret": "pets-api-keys"},
    ],
    "kubernetes": {
        "namespace": "ml",
        "cloud": "gke",
        "token_secret": "pets-ray",
        "pull_secrets": ["registry"],
        "service_account": {
            "name": "pets",
            "create": True,
            "annotations": {"iam.gke.io/gcp-service-account": "pets@project.iam.gserviceaccount.com"},
        },
        "labels": {"example.org/team": "vision"},
        "network": {
            "operator_namespace": "kuberay",
            "jobs_from": [{"namespace": "ci"}],
            "serve_from": [{"namespace": "ingress", "pods": {"app": "proxy"}}, {"pods": {"app": "shop"}}],
            "metrics_from": [{"namespace": "monitoring"}],
        },
        "redis": {"address": "rediss://redis.ml.svc:6379", "password_secret": "redis"},
        "job": {"retries": 2, "deadline_hours": 48, "keep_minutes": 0, "keep_failed_minutes": 30},
    },
}

AMOUNTS = st.sampled_from(["2Gi", "3.5Gi", "4096Mi", "9G", "64Gi", "1Ti"])
NAMES = st.from_regex(r"[a-z]([-a-z0-9]{0,12}[a-z0-9])?", fullmatch=True)
WORDS = st.text("abcXYZ019 _./:=,{}[]'\"$%&?*#!|<>\\äß\u2028", max_size=12)
"""What a shell, YAML or Kubernetes might take for something else."""
VARIABLES = st.dictionaries(st.sampled_from(["A", "b_2", "AWS_REGION", "LONG_NAME_3"]), WORDS, max_size=2)
LABEL_TEXT = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,8}[A-Za-z0-9])?", fullmatch=True)
LABELS = st.dictionaries(st.sampled_from(["pool", "example.org/rack"]), LABEL_TEXT, max_size=2)


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    """Fields that the head and a group share."""
    found: dict[str, Any] = {"cpus": draw(st.integers(1, 256)), "memory": draw(AMOUNTS), "env": draw(VARIABLES)}
    found |= {"labels": draw(LABELS), "node_selector": draw(LABELS)}
    optional = {
        "shared_memory": st.sampled_from(["1Gi", "512Mi"]),
        "grace_s": st.integers(1, 600),
        "priority_class": NAMES,
        "image": st.just("example.org/other:1"),
        "tolerations": st.just([{"key": "dedicated"}]),
        "volumes": st.just([{"name": "cache", "path": "/cache", "empty": "10Gi"}]),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(optional))))
    return found | {name: draw(optional[name]) for name in sorted(chosen)}


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    """A group."""
    least = draw(st.integers(0, 5))
    found = draw(machines()) | {"min_nodes": least, "max_nodes": draw(st.integers(max(1, least), 9))}
    found |= {"gpus": draw(st.sampled_from([0, 1, 8])), "spot": draw(st.booleans())}
    if draw(st.booleans()):
        found["resources"] = {"nvme": draw(st.integers(1, 3))}
    if draw(st.booleans()):
        found["idle_minutes"] = draw(st.floats(0.1, 1000))
    return found


@st.composite
def specs(draw: st.DrawFn) -> ClusterSpec:
    """Any cluster on Kubernetes."""
    names = draw(st.sets(st.sampled_from(["decode", "train", "serve"]), min_size=1))
    tree: dict[str, Any] = {"name": draw(NAMES), "image": "example.org/raylens:1", "head": draw(machines())}
    tree |= {name: draw(groups()) for name in sorted(names)}
    tree["env"] = draw(VARIABLES)
    tree["niceness"] = draw(st.integers(0, 19))
    tree["kubernetes"] = {"cloud": draw(st.sampled_from(["gke", "eks", "karpenter", "aks"]))}
    for field in ("pull_secrets", "service_account", "network", "redis", "job", "labels"):
        if draw(st.booleans()):
            tree["kubernetes"][field] = FULL["kubernetes"][field]
    if draw(st.booleans()):
        tree["credentials"] = FULL["credentials"]
    if draw(st.booleans()):
        tree["volumes"] = FULL["volumes"]
    return validated(ClusterSpec, tree)
