"""Jobs on a cluster of three raylets that asks for a token, by the commands that people type.

The nodes have no credentials for the object store: what reaches it got them by reference, from a file.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import yaml

from raylens.cluster.contexts import ClusterContext, ClusterContexts, update_contexts
from raylens.cluster.local.cluster import LocalCluster, LocalNode
from raylens.cluster.local.commands import NodeShape
from raylens.config import validated
from raylens.ports import free_port
from raylens.registry import Registry
from raylens.serve import EmbeddingClient
from raylens.storage import open_store
from raylens.workloads.quickstart.digits import pack_digits
from tests.integration.nodes.conftest import OURS, RAYS, survivors

HEAD = NodeShape(cpus=1, store_bytes=150_000_000)
"""With no room for two workers: they are where they can be killed with their node."""
NODE = NodeShape(cpus=2, store_bytes=150_000_000)
REPOSITORY = Path(__file__).parents[3]
COMMAND = str(Path(sys.executable).with_name("raylens"))
SECRET = f"correct-horse-{uuid.uuid4().hex}"
KEY_ID = "raylens-tests"
PATIENCE_SECONDS = 240.0


@dataclass
class Site:
    """A cluster, a bucket, and the environment of somebody who uses them."""

    cluster: LocalCluster
    bucket: str
    folder: Path
    environment: dict[str, str]
    followed: "list[Following]" = field(default_factory=list)

    def raylens(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *words],
            env=self.environment | environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def fails(self, *words: str, **environment: str) -> str:
        """The one line that says why."""
        run = self.raylens(*words, **environment)
        assert run.returncode in (1, 2), run.stderr
        [line] = run.stderr.strip().splitlines()
        assert line.startswith("error: ")
        return line

    def follows(self, *words: str) -> "Following":
        process = subprocess.Popen(
            [COMMAND, "jobs", *words],
            env=self.environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.followed.append(Following(process))
        return self.followed[-1]

    def under(self, sub: str) -> str:
        base, _, query = self.bucket.partition("?")
        return f"{base}/{sub}?{query}"

    @property
    def source(self) -> list[str]:
        """A copy of the checkout, which nobody changes while the tests run."""
        copy = self.folder / "checkout"
        if not copy.exists():
            copy.mkdir()
            for name in ("pyproject.toml", "README.md", "LICENSE"):
                shutil.copy(REPOSITORY / name, copy)
            for name in ("platform", "workloads", "serve", "cluster"):
                shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        return ["--source", str(copy)]

    @property
    def models(self) -> Path:
        """A volume that all nodes have."""
        return self.folder / "models"

    @property
    def training(self) -> list[str]:
        """The quickstart's recipe, shrunk."""
        changes = {
            "storage": self.under("runs"),
            "registry": str(self.models),
            "data.train": self.under("data/train"),
            "length.epochs": 16,
            "checkpoint.every_steps": 20,
        }
        return ["train", "digits", *[word for key, value in changes.items() for word in ("--set", f"{key}={value}")]]


@dataclass
class Following:
    """A command that prints what a job prints, and what it has printed so far."""

    process: "subprocess.Popen[str]"
    lines: list[str] = field(default_factory=list)
    status: int | None = None
    niceness: set[int] = field(default_factory=set)
    """Of the training workers that were seen."""

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.lines.extend(lines)

    def until(self, pattern: str) -> str:
        def found() -> str:
            ended = self.process.poll() is not None
            line = next((line for line in self.lines if re.search(pattern, line)), "")
            assert line or not ended, f"it ended without {pattern!r}: {''.join(self.lines)}"
            return line

        return until(found, pattern, self.lines)

    def end(self) -> int:
        status = self.process.wait(PATIENCE_SECONDS)
        self._reader.join()
        return status

    @property
    def text(self) -> str:
        return "".join(self.lines)


def until(found: Callable[[], str], what: str, told: object = "") -> str:
    end = time.monotonic() + PATIENCE_SECONDS
    while not (result := found()):
        assert time.monotonic() < end, f"waited {PATIENCE_SECONDS:.0f} s for {what}: {told}"
        time.sleep(0.2)
    return result


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, s3_server: str) -> Iterator[Site]:
    import boto3

    folder = tmp_path_factory.mktemp("site")
    bucket = f"raylens-{uuid.uuid4().hex[:12]}"
    boto3.client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET,
    ).create_bucket(Bucket=bucket)
    (folder / "secret").write_text(f"{SECRET}\n")
    before = set(psutil.pids())
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "RAY_", "RAYLENS_"))]:
            patch.delenv(name)
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
            patch.setenv(name, str(folder / "home"))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("ON_ALL_NODES", SECRET)
        with LocalCluster([HEAD, NODE, NODE]) as cluster:
            patch.delenv("ON_ALL_NODES")
            patch.setenv("RAYLENS_CONTEXTS", str(folder / "contexts.yaml"))
            secret = f"AWS_SECRET_ACCESS_KEY=file:{folder / 'secret'}"
            context = {**cluster.context.model_dump(), "env": {"AWS_ACCESS_KEY_ID": KEY_ID}, "secrets": [secret]}
            known = ClusterContexts(contexts={"three": validated(ClusterContext, context)})
            update_contexts(lambda _: known.using("three"))
            site = Site(
                cluster, f"s3://{bucket}?endpoint_override={s3_server}&region=us-east-1", folder, dict(os.environ)
            )
            yield site
            for following in site.followed:
                following.process.kill()
                following.process.wait()
    assert not cluster.folder.exists()
    assert not survivors(before, (*RAYS, *OURS, "haproxy"))


@pytest.fixture(scope="module")
def stopped(site: Site) -> Following:
    """A job that was stopped after its first checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        pack_digits(open_store(site.under("data")))
    following = site.follows("submit", "--id", "try", *site.source, "--", *site.training)
    following.until("checkpoint at step")
    assert "try is STOPPED" in site.raylens("jobs", "stop", "try").stderr
    following.status = following.end()
    return following


@pytest.fixture(scope="module")
def finished(site: Site, stopped: Following) -> Following:
    """The same once more, which lost a node with its workers, and the server of its log, on its way to success."""
    following = site.follows("retry", "try")
    following.until("checkpoint at step")
    lost = busy(site.cluster)
    following.niceness = {one.nice() for one in processes_of(lost, "RayTrainWorker")}
    kill(site.cluster.nodes[0], "JobHead")
    site.cluster.kill(lost)
    site.cluster.add_node(NODE)
    following.status = following.end()
    return following


def busy(cluster: LocalCluster) -> LocalNode:
    """A node with training workers."""
    return next(node for node in cluster.nodes[1:] if processes_of(node, "RayTrainWorker"))


def kill(node: LocalNode, name: str) -> None:
    [process] = processes_of(node, name)
    process.kill()


def processes_of(node: LocalNode, name: str) -> list[psutil.Process]:
    return [one for one in psutil.Process(node.pid).children(recursive=True) if name in words_of(one)]


def words_of(process: psutil.Process) -> str:
    """Its command line; nothing where it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


@pytest.mark.slow
def test_a_run_that_is_stopped_saves_first(site: Site, stopped: Following) -> None:
    assert stopped.status == 130, stopped.text
    assert re.search(r"stopped after step \d+, its state saved", stopped.text)
    assert stopped.lines[-1] == "try was stopped; raylens jobs retry try continues it\n"
    assert site.raylens("jobs", "wait", "try").returncode == 130


@pytest.mark.slow
def test_it_goes_on_and_finishes_though_a_node_is_lost(stopped: Following, finished: Following) -> None:
    assert finished.status == 0, finished.text
    [saved] = re.findall(r"stopped after step (\d+)", stopped.text)
    first, again = re.findall(r"continuing after step (\d+)", finished.text)
    assert int(saved) == int(first) <= int(again)
    assert "workers lost" in finished.text
    assert "digits@1 in " in finished.text
    assert finished.lines[-1] == "try-2 succeeded\n"


@pytest.mark.slow
def test_its_workers_have_a_fair_share_of_the_processors(finished: Following) -> None:
    assert finished.niceness == {psutil.Process().nice()}


@pytest.mark.slow
def test_a_log_is_told_once_and_in_order(site: Site, finished: Following) -> None:
    again = site.raylens("jobs", "logs", "-f", "try-2")
    assert again.returncode == 0
    whole = again.stdout.splitlines(keepends=True)
    assert [line for line in finished.lines if line in set(whole)] == whole


@pytest.mark.slow
def test_the_same_id_is_the_same_job(site: Site, stopped: Following) -> None:
    again = site.raylens("jobs", "submit", "--id", "try", *site.source, "--", *site.training)
    assert again.returncode == 130
    assert "is there already: try" in again.stderr
    assert "uploaded" not in again.stderr
    other = site.fails("jobs", "submit", "--id", "try", "--", "recipes")
    assert "'try' (STOPPED) with other content: command ['train'" in other
    listed = json.loads(site.raylens("jobs", "list", "--json").stdout)
    assert [job["submission_id"] for job in listed].count("try") == 1


@pytest.mark.slow
def test_a_file_travels_as_what_it_comes_to_and_the_same_code_is_brought_once(site: Site, stopped: Following) -> None:
    places = {"storage": site.under("other"), "registry": str(site.models)}
    config = {"recipe": "digits", "name": "mine", **places, "data": {"train": site.under("data")}}
    (site.folder / "mine.yaml").write_text(yaml.safe_dump(config))
    words = ["train", "mine.yaml", "--set", "seed=7", "--print-config"]
    run = site.raylens("jobs", "submit", *site.source, "--", *words)
    assert run.returncode == 0, run.stderr
    printed = yaml.safe_load(run.stdout[run.stdout.index("name: ") :])
    assert (printed["name"], printed["seed"], printed["model"]["embed_dim"]) == ("mine", 7, 64)
    [brought] = re.findall(r"uploaded (.*)", run.stderr)
    assert re.fullmatch(r"raylens-files-\w+\.zip", brought)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cluster", "http://127.0.0.1:9", "--", "recipes"], "no answer from http://127.0.0.1:9"),
        (["--source", "broken", "--", "recipes"], "broken does not build: "),
        (["--", "train", "vit_b33"], "unknown recipe 'vit_b33'; recipes: digits"),
        (["--secret", f"A={SECRET}", "--", "recipes"], "never its value"),
    ],
)
def test_what_cannot_be_submitted_is_said_in_one_line(site: Site, words: list[str], said: str) -> None:
    (site.folder / "broken").mkdir(exist_ok=True)
    (site.folder / "broken" / "pyproject.toml").write_text("[project\n")
    line = site.fails("jobs", "submit", *words)
    assert said in line
    assert SECRET not in line


def test_a_wrong_token_is_refused(site: Site) -> None:
    address = site.cluster.context.address
    wrong = site.fails("jobs", "submit", "--cluster", address, "--", "recipes", RAY_AUTH_TOKEN="not-the-one")
    assert "refuses the token from the variable RAY_AUTH_TOKEN" in wrong
    for path in ("/api/jobs/", "/api/version", "/nodes", "/api/serve/applications/"):
        assert httpx.get(address + path).status_code == 401


def test_a_secret_that_the_nodes_lack_ends_the_job_in_one_line(site: Site) -> None:
    run = site.raylens("jobs", "submit", "--id", "lacks", "--secret", "NOWHERE", "--", "recipes")
    assert run.returncode == 1
    [line] = [line for line in run.stdout.splitlines() if line.startswith("error: ")]
    assert "secret NOWHERE is missing on node" in line
    assert "lacks failed with exit status 1" in run.stderr


@pytest.mark.slow
def test_nothing_that_is_shown_of_a_job_holds_a_secret(site: Site, finished: Following) -> None:
    run = site.raylens("jobs", "submit", "--id", "told", "--secret", "ON_ALL_NODES", "--", "recipes")
    assert run.returncode == 0, run.stdout
    shown = site.raylens("jobs", "list", "--json").stdout
    logs = [file.read_text(errors="replace") for file in (site.cluster.folder / "ray").rglob("*") if is_text(file)]
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    token = site.cluster.token_file.read_text()
    for text in [shown, *logs, *commands, finished.text]:
        assert SECRET not in text
        assert token not in text
    assert "AWS_SECRET_ACCESS_KEY=file:" in shown


def is_text(file: Path) -> bool:
    return file.is_file() and not file.is_symlink() and file.suffix in (".log", ".out", ".err", ".txt", ".json")


@pytest.mark.slow
def test_the_trained_model_is_deployed_and_embeds(site: Site, finished: Following) -> None:
    port = free_port()
    words = ["digits", "--registry", str(site.models), "--port", str(port), "--out", "service.yaml"]
    assert site.raylens("serve", "build", *words).returncode == 0
    deployed = site.raylens("serve", "deploy", "service.yaml")
    assert deployed.stdout == f"http://127.0.0.1:{port}\n", deployed.stderr
    with EmbeddingClient(deployed.stdout.strip()) as client:
        vectors = np.asarray(client.embed(["a handwritten seven"]))
    _, encoder = Registry(str(site.models)).load("digits")
    assert np.abs(vectors - encoder.encode_texts(["a handwritten seven"]).numpy()).max() < 2e-2
    assert site.raylens("serve", "undeploy").returncode == 0


@pytest.mark.slow
def test_a_cluster_in_the_background_ends_with_its_command_however_that_ends(site: Site) -> None:
    before = set(psutil.pids())
    begun = site.raylens(
        "cluster", "local", "--nodes", "1", "--port", "0", "--name", "small", "--detach", RAYLENS_NICENESS="7"
    )
    assert begun.returncode == 0, begun.stderr
    assert "is running (pid " in site.fails("cluster", "local", "--name", "small")
    [command] = [one for one in psutil.Process().children(recursive=True) if "--name small" in words_of(one)]
    [raylet] = [one for one in command.children(recursive=True) if one.name() == "raylet"]
    assert raylet.environ()["RAY_worker_niceness"] == "7"  # which its workers inherit
    command.kill()
    command.wait(30)
    assert not survivors(before, (*RAYS, "supervisor"))
    assert "no local cluster 'small' runs" in site.fails("cluster", "local", "--name", "small", "--stop")
