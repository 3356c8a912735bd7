"""The file for `ray up`: Ray's own preparation and validation take it, machines are private, the token is not in it."""

import copy
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.autoscaler._private.util import prepare_config, validate_config
from typer.testing import CliRunner

from raylens.cluster.description import ClusterSpec
from raylens.cluster.ray_up import render, to_yaml
from raylens.config import validated
from raylens.config.placement import GROUP_LABEL, Placement, node_labels
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app
from tests.helpers.cluster_examples import SMALL, WORDS, groups, machines

GOLDEN = Path(__file__).parent / "golden"
RENEW = "RAYLENS_RENEW_GOLDEN"
LOGIN = {"ssh_user": "ubuntu", "ssh_private_key": "~/.ssh/pets.pem"}
AWS = LOGIN | {
    "aws": {
        "region": "eu-central-1",
        "zones": ["eu-central-1a", "eu-central-1b"],
        "machine_image": "ami-0123456789abcdef0",
        "subnets": ["subnet-1", "subnet-2"],
        "security_groups": ["sg-1"],
        "instance_profile": "arn:aws:iam::123456789012:instance-profile/raylens",
        "key_name": "pets",
    },
    "ssh_proxy_command": "ssh -W %h:%p bastion",
    "before_container": ["docker login --username AWS example.org < /etc/registry"],
}
GCP = LOGIN | {
    "gcp": {
        "project": "pets",
        "region": "europe-west4",
        "zone": "europe-west4-a",
        "machine_image": "projects/pets/global/images/docker-gpu",
        "subnetwork": "projects/pets/regions/europe-west4/subnetworks/ray",
        "service_account": "raylens@pets.iam.gserviceaccount.com",
        "network_tags": ["ray"],
    }
}
ON_PREM = LOGIN | {"on_prem": {"head": "10.0.0.1"}, "env_file": "/etc/raylens/env"}
MACHINES: dict[str, Any] = {
    "name": "pets",
    "image": "example.org/raylens:0.1.0-gpu",
    "ray_version": "2.60.0",
    "head": {"cpus": 4, "memory": "16Gi", "instance_type": "head-type"},
    "decode": {"max_nodes": 2, "cpus": 16, "memory": "64Gi", "spot": True, "instance_type": "cpu-type"},
    "train": {
        "min_nodes": 1,
        "max_nodes": 1,
        "cpus": 32,
        "memory": "256Gi",
        "gpus": 8,
        "instance_type": "gpu-type",
        "resources": {"nvme": 2},
        "labels": {"rack": "7"},
        "idle_minutes": 20,
    },
    "serve": {"max_nodes": 2, "cpus": 8, "memory": "32Gi", "instance_type": "cpu-type", "env": {"A": "it's $HOME"}},
    "env": {"AWS_REGION": "eu-central-1"},
    "volumes": [{"name": "data", "path": "/data", "host": "/mnt/data", "read_only": True}],
}
HOSTS = {"decode": ["10.0.0.2", "10.0.0.3"], "train": ["gpu-1"], "serve": ["10.0.0.5", "10.0.0.6"]}


def spec_of(launcher: dict[str, Any], tree: dict[str, Any] = MACHINES) -> ClusterSpec:
    found = copy.deepcopy(tree) | {"launcher": launcher}
    if "on_prem" in launcher:
        for name, hosts in HOSTS.items():
            found[name]["hosts"] = hosts
    return validated(ClusterSpec, found)


def accepted(spec: ClusterSpec) -> dict[str, Any]:
    """The file as `ray up` reads it, prepared and validated as `ray up` does it."""
    config: dict[str, Any] = prepare_config(yaml.safe_load(to_yaml(render(spec), spec)))
    validate_config(config)
    return config


@pytest.mark.parametrize(("name", "launcher"), [("aws", AWS), ("gcp", GCP), ("on-prem", ON_PREM)])
def test_files_are_as_the_golden_ones_and_ray_accepts_them(name: str, launcher: dict[str, Any]) -> None:
    spec = spec_of(launcher)
    text = to_yaml(render(spec), spec)
    file = GOLDEN / f"ray-up-{name}.yaml"
    if os.environ.get(RENEW):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"if this is meant, {RENEW}=1 writes {file} again"
    accepted(spec)


@st.composite
def cloud_specs(draw: st.DrawFn) -> ClusterSpec:
    kind = {"instance_type": "any"}
    tree = {"name": "any", "image": "example.org/raylens:1", "head": draw(machines()) | kind}
    names = draw(st.sets(st.sampled_from(["decode", "train", "serve"]), min_size=1))
    tree |= {name: draw(groups()) | kind for name in sorted(names)}
    return validated(ClusterSpec, tree | {"launcher": draw(st.sampled_from([AWS, GCP]))})


@given(cloud_specs())
@settings(max_examples=20)
def test_ray_accepts_any_description(spec: ClusterSpec) -> None:
    config = accepted(spec)
    assert set(config["available_node_types"]) == {"head", *spec.groups}
    assert config["max_workers"] == sum(group.max_nodes for group in spec.groups.values())


@pytest.mark.parametrize("launcher", [AWS, GCP])
def test_node_types_carry_the_labels_and_sizes_of_their_groups(launcher: dict[str, Any]) -> None:
    types = accepted(spec_of(launcher))["available_node_types"]
    assert {name: one["labels"][GROUP_LABEL] for name, one in types.items()} == {name: name for name in types}
    assert set(Placement.read([types["head"]["labels"]]).groups) == {"decode", "train", "serve"}
    assert types["head"]["resources"] == {"CPU": 0}
    assert types["train"]["resources"] == {"CPU": 32, "GPU": 8, "nvme": 2}
    assert (types["train"]["min_workers"], types["train"]["max_workers"]) == (1, 1)
    assert (types["train"]["idle_timeout_s"], types["train"]["labels"]["rack"]) == (1200, "7")
    options = types["serve"]["docker"]["worker_run_options"]
    assert shlex.quote("--env=A=it's $HOME") in options


@pytest.mark.parametrize("launcher", [AWS, GCP])
def test_machines_have_no_public_address_and_the_dashboard_none_but_loopback(launcher: dict[str, Any]) -> None:
    config = accepted(spec_of(launcher))
    assert config["provider"]["use_internal_ips"] is True
    [start] = [line for line in config["head_start_ray_commands"] if "ray start" in line]
    assert "--dashboard-host=127.0.0.1" in start
    for one in config["available_node_types"].values():
        if "aws" in launcher:
            assert one["node_config"]["SecurityGroupIds"] == ["sg-1"]  # or Ray makes one that is open to everybody
            assert one["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
        else:
            [network] = one["node_config"]["networkInterfaces"]
            assert "accessConfigs" not in network


def test_spot_machines_are_asked_for_as_each_cloud_has_them() -> None:
    aws = accepted(spec_of(AWS))["available_node_types"]
    assert aws["decode"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in aws["train"]["node_config"]
    gcp = accepted(spec_of(GCP))["available_node_types"]
    assert gcp["decode"]["node_config"]["scheduling"]["provisioningModel"] == "SPOT"
    assert gcp["train"]["node_config"]["scheduling"] == {"onHostMaintenance": "TERMINATE"}


@pytest.mark.parametrize("launcher", [AWS, GCP, ON_PREM])
def test_the_token_travels_as_a_file_and_is_asked_for_on_every_machine(launcher: dict[str, Any]) -> None:
    config = accepted(spec_of(launcher))
    assert config["file_mounts"] == {"/etc/raylens/auth_token": "~/.ray/auth_token"}
    options = config["docker"]["run_options"]
    assert {"--env=RAY_AUTH_MODE=token", "--env=RAY_AUTH_TOKEN_PATH=/etc/raylens/auth_token"} <= set(options)
    assert {"--cap-drop=ALL", "--security-opt=no-new-privileges"} <= set(options)
    assert not any(one.startswith("--env=RAY_AUTH_TOKEN=") for one in options)


@pytest.mark.parametrize("launcher", [AWS, GCP, ON_PREM])
@pytest.mark.parametrize(
    ("said", "expected"),
    [({}, "0"), ({"niceness": 7}, "7"), ({"niceness": 7, "env": {"RAY_worker_niceness": "15"}}, "15")],
)
def test_workers_have_a_fair_share_of_the_processors_or_what_is_said(
    launcher: dict[str, Any], said: dict[str, Any], expected: str
) -> None:
    options = accepted(spec_of(launcher, MACHINES | said))["docker"]["run_options"]
    assert [one for one in options if "niceness" in one] == [f"--env=RAY_worker_niceness={expected}"]


def started_on(address: str, spec: ClusterSpec) -> list[str] | None:
    """What the workers' command calls on a machine with this address; None where it refuses."""
    [command] = [line for line in accepted(spec)["worker_start_ray_commands"] if "ray start" in line]
    shown = (
        'ulimit() { :; }; hostname() { [ -z "$1" ] && echo unnamed || echo ' + address + "; }; ray() { printf '%s\\0' "
    )
    script = f'{shown}"$@"; printf \'A=%s\\0\' "$A"; }}; export RAY_HEAD_IP=10.0.0.1; {command}'
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    if ended.returncode:
        assert "no group has this machine" in ended.stderr
        return None
    return ended.stdout.split("\0")[:-1]


def test_each_of_your_own_machines_finds_its_group() -> None:
    spec = spec_of(ON_PREM)
    sizes = {name: group.size for name, group in spec.groups.items()}
    expected = {"decode": node_labels("decode", sizes), "train": node_labels("train", sizes) | {"rack": "7"}}
    expected["serve"] = node_labels("serve", sizes)
    for name, hosts in HOSTS.items():
        for host in hosts:
            words = started_on(host, spec)
            assert words is not None
            assert words[0] == "start"
            labels = next(word for word in words if word.startswith("--labels=")).removeprefix("--labels=")
            assert dict(pair.split("=") for pair in labels.split(",")) == expected[name]
            group = spec.groups[name]  # type: ignore[index]
            assert {f"--num-cpus={group.cpus}", f"--num-gpus={group.gpus}"} <= set(words)
            assert f"--object-store-memory={group.object_store_bytes}" in words
            assert words[-1] == ("A=it's $HOME" if name == "serve" else "A=")
            assert ('--resources={"nvme": 2}' in words) == (name == "train")
    assert started_on("10.0.0.22", spec) is None


@given(WORDS)
@settings(max_examples=25)
def test_a_value_survives_the_shell_of_the_machine(value: str) -> None:
    spec = validated(ClusterSpec, copy.deepcopy(MACHINES) | {"launcher": AWS, "env": {"A": value}})
    options = accepted(spec)["docker"]["run_options"]
    assert f"--env=A={value}" in shlex.split(" ".join(options))


def test_your_own_machines_are_all_kept() -> None:
    config = accepted(spec_of(ON_PREM))
    [only] = config["available_node_types"].values()
    assert (only["min_workers"], only["max_workers"], config["max_workers"]) == (5, 5, 5)
    assert config["provider"]["worker_ips"] == [host for hosts in HOSTS.values() for host in hosts]


@pytest.mark.parametrize(
    ("launcher", "changes", "says"),
    [
        (AWS, {"head": {"cpus": 1, "memory": "8Gi"}}, "head.instance_type is missing"),
        (AWS, {"volumes": [{"name": "a", "path": "/a", "claim": "b"}]}, "head: volume 'a'"),
        (ON_PREM, {"image": "example.org/raylens:1", "credentials": [{"secret": "s3"}]}, None),
        (ON_PREM | {"env_file": None}, {"credentials": [{"secret": "s3"}]}, "launcher.env_file"),
        (ON_PREM | {"on_prem": {"head": "gpu-1"}}, {}, "train.hosts: 'gpu-1'"),
    ],
)
def test_what_machines_cannot_have_is_refused(
    launcher: dict[str, Any], changes: dict[str, Any], says: str | None
) -> None:
    spec = spec_of(launcher, MACHINES | changes)
    if says is None:
        accepted(spec)
        return
    with pytest.raises(ConfigError) as raised:
        render(spec)
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("group", "changes", "says"),
    [
        ("decode", {"max_nodes": 3}, "decode.hosts names 2 machines, decode.max_nodes = 3"),
        ("decode", {"image": "example.org/raylens:0.1.0-cpu"}, "0.1.0-cpu"),
        ("decode", {"volumes": [{"name": "a", "path": "/a", "host": "/b"}]}, "decode.volumes"),
    ],
)
def test_your_own_machines_are_started_alike(group: str, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        render(spec_of(ON_PREM, MACHINES | {group: MACHINES[group] | changes}))
    assert says in str(raised.value)


def test_the_command_writes_the_file_and_says_what_is_missing(tmp_path: Path) -> None:
    file, out = tmp_path / "cluster.yaml", tmp_path / "up.yaml"
    file.write_text(yaml.safe_dump(copy.deepcopy(MACHINES) | {"launcher": AWS}))
    ask = ["cluster", "render", "ray-up", str(file), "--out", str(out)]
    assert CliRunner().invoke(app, ask).exit_code == 0
    validate_config(prepare_config(yaml.safe_load(out.read_text())))
    file.write_text(yaml.safe_dump(SMALL))
    error = CliRunner().invoke(app, ask).exception
    assert isinstance(error, ConfigError)
    assert "launcher is missing" in str(error)
