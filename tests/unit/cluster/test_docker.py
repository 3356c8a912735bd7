"""The image and the laptop's cluster, as far as they can be checked without a container engine."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from ray.scripts.scripts import start as ray_start

from raylens.placement import GROUPS, Group, GroupSize, Placement, node_labels

REPOSITORY = Path(__file__).parents[3]
DOCKER = REPOSITORY / "docker"
NODES = ("head", *GROUPS)


class Step(NamedTuple):
    """An instruction of a Dockerfile."""

    stage: str
    name: str
    text: str


def steps() -> list[Step]:
    """Of the Dockerfile, with the stage that each is in."""
    text = (DOCKER / "Dockerfile").read_text()
    # A line that goes on after a backslash is one with the next, as the builder reads it.
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    found, stage = [], ""
    for line in lines.replace("\\\n", "\0").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.replace("\0", " ").partition(" ")
        if name == "FROM":
            stage = rest.rpartition(" AS ")[2]
        found.append(Step(stage, name, rest.strip()))
    return found


def of(stage: str, name: str) -> list[str]:
    """Instructions of a stage and of those that it stands on."""
    [base] = [step.text.split(" AS ")[0] for step in steps() if (step.stage, step.name) == (stage, "FROM")]
    below = of(base, name) if base in {step.stage for step in steps()} else []
    return below + [step.text for step in steps() if (step.stage, step.name) == (stage, name)]


def compose() -> dict[str, Any]:
    tree = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("target", ["cpu", "gpu", "serve"])
def test_an_image_runs_as_a_user_without_rights_under_a_small_init(target: str) -> None:
    assert of(target, "USER")[-1] == "1000:1000"  # as numbers: Kubernetes' runAsNonRoot looks at them
    assert yaml.safe_load(of(target, "ENTRYPOINT")[-1]) == ["tini", "--"]
    assert yaml.safe_load(of(target, "CMD")[-1]) == ["raylens", "--help"]
    assert {"RAY_AUTH_MODE=token", "RAY_worker_niceness=0"} <= set(" ".join(of(target, "ENV")).split())
    [check] = of(target, "HEALTHCHECK")
    command = yaml.safe_load(check.partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")


def test_every_package_comes_under_the_constraints_and_from_no_named_index() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    installs = re.findall(r"pip install[^;\n]*", "\n".join(step.text for step in steps() if step.name == "RUN"))
    assert len(installs) == 5
    assert all("constraints.txt" in install for install in installs)
    assert "find-links" not in text
    assert "extra-index" not in text
    assert not re.search(r"https?://(?!127\.0\.0\.1)", text)
    [pinned] = [
        line for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if line.startswith("torch==")
    ]
    assert pinned == "torch==2.13.0"


def test_no_secret_gets_into_a_layer() -> None:
    for step in steps():
        if step.name in ("ARG", "ENV"):
            assert not re.search(r"(?i)(token|password|secret)\s*=", step.text), step
        if step.name == "RUN" and "pip.conf" in step.text:
            assert "--mount=type=secret,id=pip_conf" in step.text


def test_the_shell_reads_every_command() -> None:
    for step in steps():
        if step.name == "RUN":
            command = re.sub(r"--mount=\S+\s+", "", step.text)
            subprocess.run(["sh", "-n", "-c", command], check=True)


def test_what_is_copied_is_there_and_is_all_that_the_context_has() -> None:
    kept = {line[1:] for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = set()
    for step in steps():
        if step.name == "COPY" and "--from" not in step.text:
            copied |= set(step.text.split()[:-1])
    assert copied == kept
    assert all((REPOSITORY / name).exists() for name in copied)


def test_stages_are_made_before_they_are_used() -> None:
    seen = set[str]()
    for step in steps():
        if step.name == "FROM":
            base = step.text.split(" AS ")[0]
            assert base in seen | {"${PYTHON_IMAGE}"}
            seen.add(step.stage)
        for source in re.findall(r"--from=(\S+)", step.text):
            assert source in seen
    assert {"cpu", "gpu", "serve"} <= seen


def test_the_serving_image_has_no_extra_and_the_others_train() -> None:
    [serving] = [text for text in of("serving", "RUN") if "/wheel/*.whl" in text]
    assert "EXTRAS" not in serving
    [training] = [text for text in of("environment", "RUN") if "/wheel/*.whl" in text]
    assert "$EXTRAS" in training
    assert 'EXTRAS="[train]"' in of("environment", "ARG")


def test_a_laptops_ports_are_on_its_loopback() -> None:
    services = compose()["services"]
    assert set(services) == set(NODES)
    for name, service in services.items():
        for port in service.get("ports", ()):
            assert re.fullmatch(r"127\.0\.0\.1:([0-9]+):\1", port), (name, port)
        assert "network_mode" not in service
        assert "privileged" not in service


def test_every_container_asks_for_the_token_and_has_no_rights() -> None:
    tree = compose()
    assert tree["secrets"] == {"ray_token": {"environment": "RAY_AUTH_TOKEN"}}
    for service in tree["services"].values():
        assert service["environment"]["RAY_AUTH_MODE"] == "token"
        assert service["environment"]["RAY_AUTH_TOKEN_PATH"] == "/run/secrets/ray_token"
        assert "RAY_AUTH_TOKEN" not in service["environment"]
        assert service["secrets"] == ["ray_token"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["build"]["target"] == "cpu"


def test_every_container_and_its_workers_have_a_fair_share_unless_the_laptop_says_otherwise() -> None:
    for service in compose()["services"].values():
        assert service["environment"]["RAY_worker_niceness"] == "${RAY_worker_niceness:-0}"
        assert service["cpu_shares"] == "${RAYLENS_CPU_SHARES:-1024}"


@pytest.mark.parametrize("name", NODES)
def test_ray_takes_the_arguments_of_each_node_and_the_labels_are_those_of_its_group(name: str) -> None:
    service = compose()["services"][name]
    assert service["command"][:2] == ["ray", "start"]
    # Ray's own parser; what it would do is not done.
    context = ray_start.make_context("start", list(service["command"][2:]), resilient_parsing=False)
    assert context.params["block"]
    assert context.params["head"] == (name == "head")
    labels = dict(pair.split("=") for pair in context.params["labels"].split(","))
    sizes: dict[Group, GroupSize] = {group: GroupSize(nodes=1, cpus=2) for group in GROUPS}
    assert labels == node_labels("head" if name == "head" else _group(name), sizes)
    assert context.params["num_cpus"] == (0 if name == "head" else 2)
    bytes_of = {"1g": 2**30, "2g": 2**31}
    assert context.params["object_store_memory"] <= bytes_of[service["shm_size"]]
    if name == "head":
        assert set(Placement.read([labels]).groups) == set(GROUPS)


def test_the_commands_in_the_files_are_commands() -> None:
    """Each begins a line of its own in the heads of both files."""
    from typer.main import get_command

    from raylens.workloads.cli.app import app

    root: Any = get_command(app)
    for file in ("Dockerfile", "compose.yaml"):
        for line in (DOCKER / file).read_text().splitlines():
            if line.startswith("#   ") and " raylens " in f" {line} ":
                words = shlex.split(line.lstrip("# "), comments=True)
                assert words[words.index("raylens") + 1] in root.commands


def _group(name: str) -> Group:
    [found] = [group for group in GROUPS if group == name]
    return found
