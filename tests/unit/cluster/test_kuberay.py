"""Manifests for KubeRay: schemas, the operator's rules, Ray's autoscaler, golden files, what is right by default."""

import copy
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from raylens.cluster.description import ClusterSpec
from raylens.cluster.kuberay import KINDS, Kind, Serving, render, to_yaml
from raylens.config import validated
from raylens.config.placement import GROUP_LABEL, Placement
from raylens.errors import ConfigError
from tests.helpers.cluster_examples import FULL, SMALL, WORDS, specs
from tests.helpers.cluster_pods import object_errors, pod_errors, restricted_errors
from tests.helpers.custom_resources import operator_errors, rules, schema, schema_errors

GOLDEN = Path(__file__).parent / "golden"
RENEW = "RAYLENS_RENEW_GOLDEN"
"""Set to 1, the golden files are written again; look at the difference before it is committed."""
SERVING = Serving("proxy_location: EveryNode\napplications: []\n", port=8100)
COMMAND = ["raylens", "train", "vit_b32", "--set", "storage=s3://runs?region=eu&endpoint_override=http://store:9000"]


def spec_of(tree: dict[str, Any], **changes: Any) -> ClusterSpec:
    return validated(ClusterSpec, copy.deepcopy(tree) | changes)


def rendered(spec: ClusterSpec, kind: Kind, **more: Any) -> list[dict[str, Any]]:
    """Manifests, through their text as kubectl reads it."""
    given: dict[Kind, dict[str, Any]] = {"cluster": {}, "job": {"command": COMMAND}, "service": {"serving": SERVING}}
    more = given[kind] | more
    return list(yaml.safe_load_all(to_yaml(render(spec, kind, **more))))


def cluster_of(manifest: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = manifest["spec"]
    found: dict[str, Any] = spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
    return found


def templates(manifests: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Pod templates by group, and the submitter's."""
    cluster = cluster_of(manifests[-1])
    found = {"head": cluster["headGroupSpec"]["template"]}
    found |= {group["groupName"]: group["template"] for group in cluster["workerGroupSpecs"]}
    submitter = manifests[-1]["spec"].get("submitterPodTemplate")
    return found | ({"submitter": submitter} if submitter else {})


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [one for one in manifests if one["kind"] == kind]


def kinds_of(spec: ClusterSpec) -> list[Kind]:
    return [kind for kind, (_, groups) in KINDS.items() if set(groups) & set(spec.groups)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [("full", "cluster"), ("full", "job"), ("full", "service"), ("small", "cluster"), ("small", "job")],
)
def test_manifests_are_as_the_golden_files_have_them(name: str, kind: Kind) -> None:
    spec = spec_of({"full": FULL, "small": SMALL}[name])
    more: dict[str, Any] = {"job": {"command": COMMAND, "files": {"mine.yaml": "name: mine\n"}}}.get(kind, {})
    more |= {"serving": SERVING} if kind == "service" else {}
    text = to_yaml(render(spec, kind, **more))
    file = GOLDEN / f"kuberay-{name}-{kind}.yaml"
    if os.environ.get(RENEW):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"if this is meant, {RENEW}=1 writes {file} again"


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_full_description_is_accepted_too(kind: Kind) -> None:
    manifests = rendered(spec_of(FULL), kind)
    assert schema_errors(manifests[-1]) == []
    assert list(operator_errors(manifests[-1])) == []
    assert [error for one in manifests[:-1] for error in object_errors(one)] == []
    assert [error for one in templates(manifests).values() for error in pod_errors(one["spec"])] == []


@given(specs())
@settings(max_examples=12)
def test_any_description_gives_manifests_that_schema_and_operator_accept(spec: ClusterSpec) -> None:
    for kind in kinds_of(spec):
        manifests = rendered(spec, kind)
        assert schema_errors(manifests[-1]) == []
        assert list(operator_errors(manifests[-1])) == []
        for name, template in templates(manifests).items():
            assert list(pod_errors(template["spec"])) == [], name
        for manifest in manifests[:-1]:
            assert list(object_errors(manifest)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "headGroupSpec", "lables"), {}),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "livenessProbe", "httpget"), {}),
        (("spec", "workerGroupSpecs", 0, "maxReplicas"), "three"),
        (("spec", "workerGroupSpecs", 0, "minReplicas"), 2**31),
        (("spec", "authOptions", "mode"), "tokens"),
        (("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        (("spec", "headGroupSpec", "template", "spec", "containers", 0, "resources", "limits", "memory"), "16 GB"),
    ],
)
def test_the_schema_check_finds_what_an_api_server_would_drop_or_refuse(path: tuple[Any, ...], value: Any) -> None:
    manifest = rendered(spec_of(SMALL), "cluster")[-1]
    assert schema_errors(manifest) == []
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    [error] = schema_errors(manifest)
    assert str(path[-1]) in error


def test_a_port_that_stands_twice_is_found() -> None:
    manifest = rendered(spec_of(SMALL), "cluster")[-1]
    ports = manifest["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["ports"]
    ports.append(dict(ports[0], name="again"))
    assert any("stands there twice" in error for error in schema_errors(manifest))


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_the_schemas_have_no_rule_that_is_not_checked_here(kind: str) -> None:
    """An API server evaluates them as CEL. Those on the deletion of jobs are in `operator_errors`; the others are about
    fields that are not rendered, or that must not change."""
    known = {"gcsFaultToleranceOptions.backend", "managedBy", "deletionStrategy", "deletionRules.condition"}
    found = {path for path, _ in rules(schema(kind))}
    assert {path for path in found if not path.endswith(tuple(known))} == set()
    for manifest_kind in kinds_of(spec_of(FULL)):
        cluster = cluster_of(rendered(spec_of(FULL), manifest_kind)[-1])
        assert "managedBy" not in cluster
        assert "backend" not in cluster.get("gcsFaultToleranceOptions", {})


def test_rays_autoscaler_reads_the_groups_from_the_manifest() -> None:
    """What KubeRay runs beside the head, on the object as it would be in Kubernetes."""
    manifest = rendered(spec_of(FULL), "cluster")[-1]
    config = _derive_autoscaling_config_from_ray_cr(manifest)
    types = config["available_node_types"]
    assert (config["max_workers"], config["idle_timeout_minutes"]) == (8 + 4 + 6, 7.5)
    head = types.pop(config["head_node_type"])
    assert (head["min_workers"], head["max_workers"], head["resources"]["CPU"]) == (0, 0, 0)
    assert {name: (one["min_workers"], one["max_workers"]) for name, one in types.items()} == {
        "decode": (0, 8),
        "train": (2, 4),
        "serve": (3, 6),
    }
    assert types["train"]["resources"] == {"CPU": 32, "GPU": 8, "memory": 256 * 2**30, "nvme": 2}
    assert types["decode"]["idle_timeout_s"] == 120
    assert [types[name]["labels"][GROUP_LABEL] for name in types] == list(types)
    assert types["train"]["labels"]["example.org/rack"] == "7"
    placement = Placement.read([head["labels"], *(one["labels"] for one in types.values())])
    assert set(placement.groups) == {"decode", "train", "serve"}
    assert (size := placement.groups["train"]) is not None
    assert (size.nodes, size.cpus, size.gpus) == (4, 32, 8)


def test_a_kind_has_its_groups_and_the_head_announces_no_other() -> None:
    groups: dict[Kind, set[str]] = {
        "cluster": {"decode", "train", "serve"},
        "job": {"decode", "train"},
        "service": {"serve"},
    }
    for kind, expected in groups.items():
        cluster = cluster_of(rendered(spec_of(FULL), kind)[-1])
        assert {group["groupName"] for group in cluster["workerGroupSpecs"]} == expected
        assert set(Placement.read([cluster["headGroupSpec"]["labels"]]).groups) == expected


@pytest.mark.parametrize("kind", list(KINDS))
def test_pods_meet_the_restricted_standard_of_kubernetes(kind: Kind) -> None:
    for template in templates(rendered(spec_of(FULL), kind)).values():
        assert list(restricted_errors(template["spec"])) == []
    security = cluster_of(rendered(spec_of(FULL), kind)[-1])["autoscalerOptions"]["securityContext"]
    assert (security["allowPrivilegeEscalation"], security["capabilities"]) == (False, {"drop": ["ALL"]})


def test_tokens_are_asked_for_everywhere_and_an_old_operator_starts_nothing_open() -> None:
    cluster = cluster_of(rendered(spec_of(FULL), "cluster")[-1])
    assert cluster["authOptions"] == {"mode": "token", "secretName": "pets-ray"}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        env = environment(group["template"]["spec"])
        assert env["RAY_AUTH_MODE"] == "token"
        assert "RAY_AUTH_TOKEN" not in env  # KubeRay adds it, from the Secret
    assert cluster_of(rendered(spec_of(SMALL), "cluster")[-1])["authOptions"]["secretName"] == "small-token"


def test_nobody_comes_in_but_the_pods_themselves_the_operator_and_those_who_are_named() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(rendered(spec_of(SMALL), "cluster"), "NetworkPolicy")
    }
    assert set(policies) == {"small-inside", "small-dashboard"}
    own = {"matchLabels": {"raylens.io/cluster": "small"}}
    assert policies["small-inside"] == {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": own}]}],
    }
    [rule] = policies["small-dashboard"]["ingress"]
    operator = {"matchLabels": {"app.kubernetes.io/name": "kuberay-operator"}}
    assert rule == {
        "from": [{"namespaceSelector": {}, "podSelector": operator}],
        "ports": [{"protocol": "TCP", "port": 8265}],
    }


def test_those_who_are_named_reach_one_port() -> None:
    manifests = of_kind(rendered(spec_of(FULL), "service"), "NetworkPolicy")
    policies = {one["metadata"]["name"]: one["spec"]["ingress"][0] for one in manifests}
    inside = policies.pop("pets-serve-inside")
    assert "ports" not in inside
    assert {name: rule["ports"][0]["port"] for name, rule in policies.items()} == {
        "pets-serve-dashboard": 8265,
        "pets-serve-serve": 8100,
        "pets-serve-metrics": 8080,
    }
    assert policies["pets-serve-serve"]["from"] == [
        {
            "podSelector": {"matchLabels": {"app": "proxy"}},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}},
        },
        {"podSelector": {"matchLabels": {"app": "shop"}}},
    ]


@pytest.mark.parametrize("kind", list(KINDS))
def test_policies_and_budgets_select_the_pods_and_every_pod_is_behind_a_policy(kind: Kind) -> None:
    manifests = rendered(spec_of(FULL), kind)
    cluster = cluster_of(manifests[-1])
    pods = {"head": cluster["headGroupSpec"]} | {one["groupName"]: one for one in cluster["workerGroupSpecs"]}
    labels = {name: one["template"]["metadata"]["labels"] | one["labels"] for name, one in pods.items()}
    if kind == "job":
        labels["submitter"] = manifests[-1]["spec"]["submitterPodTemplate"]["metadata"]["labels"]
    for manifest in (*of_kind(manifests, "NetworkPolicy"), *of_kind(manifests, "PodDisruptionBudget")):
        selector = manifest["spec"].get("podSelector") or manifest["spec"]["selector"]
        chosen = [name for name, one in labels.items() if selector["matchLabels"].items() <= one.items()]
        assert chosen, manifest["metadata"]["name"]
        if manifest["metadata"]["name"].endswith("-inside"):
            assert chosen == list(labels)


def test_budgets_are_numbers_that_stay_as_custom_resources_need_them() -> None:
    budgets = of_kind(rendered(spec_of(FULL), "cluster"), "PodDisruptionBudget")
    stays = {one["metadata"]["name"]: one["spec"]["minAvailable"] for one in budgets}
    assert stays == {"pets-head": 1, "pets-train": 2, "pets-serve": 2}


def test_what_is_costly_to_lose_is_not_moved_and_what_is_not_spot_stays_off_spot_machines() -> None:
    found = templates(rendered(spec_of(FULL), "cluster"))
    kept = [
        name for name, one in found.items() if "karpenter.sh/do-not-disrupt" in one["metadata"].get("annotations", {})
    ]
    assert kept == ["head", "train"]
    assert [name for name, one in found.items() if "affinity" in one["spec"]] == ["head", "train", "serve"]
    decode = found["decode"]["spec"]
    assert decode["nodeSelector"] == {"cloud.google.com/gke-spot": "true"}
    assert decode["terminationGracePeriodSeconds"] <= 25
    assert decode["tolerations"] == [
        {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_pod_that_must_go_says_so_and_is_done_within_its_time(kind: Kind) -> None:
    cluster = cluster_of(rendered(spec_of(FULL), kind)[-1])
    for group in cluster["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        said = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]
        [told, waits] = [int(number) for number in re.findall(r"(?:remaining-seconds |seq )([0-9]+)", said)]
        [last] = [int(number) for number in re.findall(r"grace-period ([0-9]+)", said)]
        assert told == waits
        assert waits + last < pod["terminationGracePeriodSeconds"]
        assert "drain-node" in said
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "drain-node" not in head["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_the_time_to_go_may_be_as_short_as_a_second() -> None:
    tree = SMALL | {"train": SMALL["train"] | {"grace_s": 1}}
    [group] = cluster_of(rendered(spec_of(tree), "cluster")[-1])["workerGroupSpecs"]
    assert "$(seq 1);" in group["template"]["spec"]["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1]


def test_memory_is_bounded_by_what_is_asked_for_and_processors_are_not() -> None:
    for name, template in templates(rendered(spec_of(FULL), "cluster")).items():
        resources = template["spec"]["containers"][0]["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"], name
        assert "cpu" in resources["requests"], name
        assert "cpu" not in resources["limits"], name
    train = templates(rendered(spec_of(FULL), "cluster"))["train"]["spec"]["containers"][0]["resources"]
    assert train["limits"]["nvidia.com/gpu"] == train["requests"]["nvidia.com/gpu"] == "8"


@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, "0"), ({"niceness": 7}, "7"), ({"niceness": 7, "env": {"RAY_worker_niceness": "15"}}, "15")],
)
@pytest.mark.parametrize("kind", list(KINDS))
def test_workers_have_a_fair_share_of_the_processors_or_what_is_said(
    kind: Kind, said: dict[str, Any], expected: str
) -> None:
    pods = templates(rendered(spec_of(FULL, **said), kind))
    found = {name: environment(pods[name]["spec"])["RAY_worker_niceness"] for name in pods if name != "submitter"}
    assert found == {"head": expected} | dict.fromkeys(KINDS[kind][1], expected)


def test_the_head_takes_no_work_and_ends_jobs_gently() -> None:
    head = cluster_of(rendered(spec_of(FULL), "cluster")[-1])["headGroupSpec"]
    assert head["rayStartParams"] == {"num-cpus": "0", "object-store-memory": str(3 * 2**30)}
    env = environment(head["template"]["spec"])
    assert (env["RAY_JOB_STOP_SIGNAL"], env["RAY_JOB_STOP_WAIT_TIME_S"]) == ("SIGINT", "30")


def test_haproxy_is_on_where_requests_come_in_and_off_where_the_service_says_so() -> None:
    for serving, expected in ((SERVING, "1"), (Serving("a: 1\n", haproxy=False), "0")):
        for template in templates(rendered(spec_of(FULL), "service", serving=serving)).values():
            assert environment(template["spec"])["RAY_SERVE_ENABLE_HA_PROXY"] == expected
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in environment(templates(rendered(spec_of(FULL), "job"))["head"]["spec"])


def test_a_service_takes_requests_where_its_proxy_is_well() -> None:
    manifests = rendered(spec_of(FULL), "service")
    service = manifests[-1]["spec"]
    assert service["serveConfigV2"] == SERVING.config
    assert service["excludeHeadPodFromServeSvc"] is True
    container = templates(manifests)["serve"]["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"] == {"path": "/-/healthz", "port": 8100}
    assert container["livenessProbe"]["httpGet"] == {"path": "/api/healthz", "port": 52365}
    for name in ("head", "serve"):
        ports = templates(manifests)[name]["spec"]["containers"][0]["ports"]
        assert {"name": "serve", "containerPort": 8100} in ports
    redis = cluster_of(manifests[-1])["gcsFaultToleranceOptions"]
    assert redis["redisPassword"]["valueFrom"]["secretKeyRef"] == {"name": "redis", "key": "password"}


def test_a_job_goes_after_its_command_and_is_tried_again() -> None:
    job = rendered(spec_of(FULL), "job")[-1]["spec"]
    assert (job["backoffLimit"], job["activeDeadlineSeconds"], job["preRunningDeadlineSeconds"]) == (2, 172_800, 3600)
    waits = [rule["condition"]["ttlSeconds"] for rule in job["deletionStrategy"]["deletionRules"]]
    assert waits == [0, 1800, 1800]
    assert "gcsFaultToleranceOptions" not in job["rayClusterSpec"]


def test_files_of_a_command_are_with_the_driver() -> None:
    manifests = rendered(spec_of(SMALL), "job", files={"mine.yaml": "a: b\n"})
    [files] = of_kind(manifests, "ConfigMap")
    assert files["data"] == {"mine.yaml": "a: b\n"}
    found = templates(manifests)
    volumes = {one["name"]: one for one in found["head"]["spec"]["volumes"]}
    assert volumes["job-files"]["configMap"]["name"] == files["metadata"]["name"]
    assert {"name": "job-files", "mountPath": "/etc/raylens/job", "readOnly": True} in (
        found["head"]["spec"]["containers"][0]["volumeMounts"]
    )
    assert all(one["name"] != "job-files" for one in found["train"]["spec"]["volumes"])
    with pytest.raises(ConfigError, match="2,000,000 bytes"):
        render(spec_of(SMALL), "job", command=COMMAND, files={"a": "x" * 2_000_000})


@given(st.lists(WORDS.filter(lambda word: "$(" not in word and word.isprintable()), min_size=1, max_size=4))
@settings(max_examples=25)
def test_a_commands_words_reach_the_driver_as_they_were(words: list[str]) -> None:
    """Two shells read them: the submitter's, whose words `ray job submit` quotes again, and the head's."""
    import shlex

    entrypoint = rendered(spec_of(SMALL), "job", command=["raylens", *words])[-1]["spec"]["entrypoint"]
    submitted = shlex.join(shlex.split(entrypoint))
    assert shlex.split(submitted) == ["raylens", *words]


@pytest.mark.parametrize("word", ["$(HOME)", "a\nb"])
def test_words_that_would_be_changed_on_the_way_are_refused(word: str) -> None:
    with pytest.raises(ConfigError, match="the command has"):
        render(spec_of(SMALL), "job", command=["raylens", word])


@pytest.mark.parametrize(
    ("kind", "more", "says"),
    [
        ("job", {}, "a job needs a command"),
        ("service", {"serving": SERVING}, "describe serve in the cluster's file"),
        ("cluster", {"name": "Big"}, "--name 'Big'"),
        ("cluster", {"name": "x" * 48}, "at most 47"),
    ],
)
def test_what_is_missing_is_said(kind: Kind, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        render(spec_of(SMALL), kind, **more)


def test_a_service_without_settings_is_refused() -> None:
    with pytest.raises(ConfigError, match="--serve-config"):
        render(spec_of(FULL), "service")


def test_spot_machines_and_folders_of_machines_must_be_said_how() -> None:
    spot = SMALL | {"train": SMALL["train"] | {"spot": True}}
    with pytest.raises(ConfigError, match=r"train.spot = true: .* kubernetes.cloud"):
        render(spec_of(spot), "cluster")
    told = spot | {"kubernetes": {"spot_selector": {"pool": "spot"}, "spot_tolerations": [{"key": "spot"}]}}
    pod = templates(rendered(spec_of(told), "cluster"))["train"]["spec"]
    assert pod["nodeSelector"] == {"pool": "spot"}
    assert pod["tolerations"] == [{"key": "spot", "operator": "Exists"}]
    folder = SMALL | {"volumes": [{"name": "disk", "path": "/disk", "host": "/mnt/disk"}]}
    with pytest.raises(ConfigError, match=r"head: volume 'disk' is a folder of the machine, '/mnt/disk'"):
        render(spec_of(folder), "cluster")
    allowed = folder | {"kubernetes": {"host_paths": True}}
    assert {"path": "/mnt/disk", "type": "Directory"} in [
        one.get("hostPath") for one in templates(rendered(spec_of(allowed), "cluster"))["head"]["spec"]["volumes"]
    ]


def test_applying_again_takes_no_nodes_from_the_autoscaler() -> None:
    assert all("replicas" not in one for one in cluster_of(rendered(spec_of(FULL), "cluster")[-1])["workerGroupSpecs"])


def test_names_of_secrets_are_all_there_is_of_them() -> None:
    text = json.dumps([rendered(spec_of(FULL), kind) for kind in KINDS])
    assert "secretKeyRef" in text
    assert 'kind": "Secret"' not in text


def environment(pod: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one.get("value", "") for one in pod["containers"][0].get("env", ())}


@pytest.mark.parametrize(
    "text", ["y", "N", "1e3", "1e-3", ".5e3", "1_0e2", "0o17", "0x1F", "2026-1-2", "1234567890123e45"]
)
def test_text_that_kubectl_would_take_for_something_else_is_quoted(text: str) -> None:
    written = to_yaml([{"value": text, text: "a"}])
    assert f"value: '{text}'" in written
    assert f"'{text}': a" in written
