"""The description of a cluster: what it refuses, and in which words; the commands that write and check it."""

import copy
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from typer.testing import CliRunner, Result

from raylens.cluster.description import ClusterSpec, bytes_of, is_pinned, load_spec
from raylens.config import dump_yaml, load_yaml, validated
from raylens.errors import ConfigError
from raylens.workloads.cli.app import app
from raylens.workloads.submit.kuberay_service import kuberay_service
from tests.helpers.cluster_examples import FULL, SMALL, specs


def changed(path: str, value: Any, tree: dict[str, Any] = SMALL) -> dict[str, Any]:
    """The tree with one key set; folders are made on the way."""
    found = copy.deepcopy(tree)
    *folders, last = path.split(".")
    place = found
    for folder in folders:
        place = place.setdefault(folder, {})
    place[last] = value
    return found


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def written(tmp_path: Path, tree: dict[str, Any]) -> Path:
    file = tmp_path / "cluster.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


@settings(max_examples=25)
@given(specs())
def test_a_description_survives_its_yaml(spec: ClusterSpec) -> None:
    assert validated(ClusterSpec, load_yaml(dump_yaml(spec), "dumped")) == spec


def test_defaults_follow_from_the_memory() -> None:
    head = validated(ClusterSpec, SMALL).head
    assert head.memory_bytes == 8 * 2**30
    assert head.object_store_bytes < head.shared_memory_bytes < head.memory_bytes


@pytest.mark.parametrize(
    ("text", "expected"), [("64Gi", 64 * 2**30), ("500M", 500_000_000), ("1.5Gi", 3 * 2**29), ("2k", 2000)]
)
def test_amounts_are_read(text: str, expected: int) -> None:
    assert bytes_of(text) == expected


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("name", "Pets", "name = 'Pets': write at most 63 lower-case"),
        ("name", "1pets", "begin with a letter"),
        ("name", "x" * 42, "at most 41 characters"),
        ("nmae", "x", "unknown key 'nmae' (did you mean 'name'?)"),
        ("image", "example.org/raylens", "name a version"),
        ("image", "example.org:5000/raylens", "name a version"),
        ("image", "example.org/raylens:latest", "name a version"),
        ("image", "example.org/raylens@sha256:12", "64 hexadecimal digits"),
        ("ray_version", "2.60", "ray_version"),
        ("head.spot", True, "head: spot = true"),
        ("head.gpus", 1, "head: gpus = 1: no work is placed on the head"),
        ("head.memory", "64", "head.memory = '64': write an amount with its unit"),
        ("head.memory", 64, "head.memory = 64: input should be a valid string; quote"),
        ("head.memory", "512Mi", "memory = '512Mi'"),
        ("head.shared_memory", "8Gi", "shared_memory = '8Gi' must be less than memory = '8Gi'"),
        ("head.object_store", "6Gi", "object_store = '6Gi' is more than shared_memory"),
        ("head.cpus", 0, "head.cpus = 0"),
        ("niceness", 20, "niceness = 20"),
        ("niceness", -1, "niceness = -1"),
        ("niceness", "low", "niceness = 'low'"),
        ("train.min_nodes", 3, "min_nodes = 3 is more than max_nodes = 2"),
        ("train.gpu_kind", "h100", "gpu_kind = 'h100' without gpus"),
        ("train.gpu_resource", "gpus", "train.gpu_resource = 'gpus'"),
        ("train.resources", {"CPU": 3}, "CPU follow from cpus, gpus and memory"),
        ("train.labels", {"raylens.io/group": "x"}, "'raylens.io/group': keys with ray.io/ and raylens.io/"),
        ("train.labels", {"a b": "x"}, "is no key of a label"),
        ("train.labels", {"a": "x y"}, "a = 'x y'"),
        ("train.volumes", [{"name": "a", "path": "/a"}], "volume 'a' has no source: give one of claim"),
        ("train.volumes", [{"name": "a", "path": "/a", "claim": "b", "empty": "1Gi"}], "has claim and empty"),
        ("train.volumes", [{"name": "a", "path": "a", "claim": "b"}], "write an absolute path"),
        ("train.volumes", [{"name": "a", "path": "/a/../b", "claim": "b"}], "without '..'"),
        ("train.volumes", [{"name": "a", "path": "/dev/shm", "claim": "b"}], "is Ray's own"),
        ("train.volumes", [{"name": "ray-logs", "path": "/a", "claim": "b"}], "a name of raylens' own"),
        ("volumes", [{"name": n, "path": "/a", "claim": "b"} for n in "ab"], "'/a'"),
        ("train", None, "no group"),
        ("env", {"1X": "a"}, "'1X' is no name of an environment variable"),
        ("env", {"RAY_ADDRESS": "a"}, "RAY_ADDRESS is set by raylens, Ray or KubeRay"),
        ("credentials", [{"secret": "s3", "keys": {"A": "b c"}}], "A = 'b c' is no key of a Secret"),
        ("credentials", [{"secret": "S_3"}], "credentials.0.secret = 'S_3'"),
        ("kubernetes.cloud", "azure", "kubernetes.cloud = 'azure'"),
        ("kubernetes.service_account", {"name": "a", "annotations": {"b": "c"}}, "annotations need create: true"),
        ("kubernetes.redis", {"address": "redis"}, "kubernetes.redis.address = 'redis'"),
        ("kubernetes.redis", {"address": "rediss://:pw@redis:1"}, "kubernetes.redis: address holds a password"),
        ("kubernetes.redis", {"address": "redis:999999"}, "kubernetes.redis.address"),
        ("train.memory", "9" * 400 + "Gi", "write an amount with its unit"),
        ("train.memory", "9999999999Ti", "write less: Kubernetes counts to 8 EiB"),
        ("train.cpus", 10**30, "train.cpus"),
        ("train.max_nodes", 2**31, "less than or equal to 2147483647"),
        ("idle_minutes", 1e300, "idle_minutes"),
        ("kubernetes.job.start_minutes", 10**9, "kubernetes.job.start_minutes"),
        ("kubernetes.job.keep_minutes", 10**9, "kubernetes.job.keep_minutes"),
        ("kubernetes.job.deadline_hours", 1e300, "kubernetes.job.deadline_hours"),
        ("train.object_store", "1k", "object_store comes to 1,000 bytes, Ray needs"),
        ("train.scratch", "1k", "scratch = '1k'"),
        ("image", "https://example.org/raylens:1", "without https://"),
        ("image", "example.org/Raylens:1", "in lower case"),
        ("image", ":1", "write the name of an image"),
        ("image", "example.org/raylens:1:2", "write the name of an image"),
        ("image", "--privileged:1", "write the name of an image"),
        ("train.annotations", {"a b": "c"}, "train.annotations: 'a b' is no key"),
        ("train.annotations", {"a": "c" * 300_000}, "write less"),
        ("train.tolerations", [{"key": "a b"}], "'a b' is no key"),
        ("train.tolerations", [{"key": "a", "value": "b c"}], "train.tolerations.0.value = 'b c'"),
        ("train.gpu_kind", "H100 80GB", "train.gpu_kind = 'H100 80GB'"),
        ("train.resources", {'a"b': 1}, "train.resources"),
        ("train.hosts", ["a b"], "train.hosts.0 = 'a b'"),
        ("train.volumes", [{"name": "a", "path": "//tmp//ray", "claim": "b"}], "write an absolute path"),
        ("train.volumes", [{"name": "a", "path": "/tmp/./ray", "claim": "b"}], "write an absolute path"),
        ("train.volumes", [{"name": "a", "path": "/a,readonly", "claim": "b"}], "write an absolute path"),
        ("credentials", [{"secret": s, "keys": {"A": "b"}} for s in "xy"], "A of the Secret 'y'"),
        ("env", {"AZURE_STORAGE_KEY": "x"}, "AZURE_STORAGE_KEY: the value of a secret"),
        (
            "launcher",
            {"ssh_private_key": "k", "on_prem": {"head": "a"}, "before_container": ["docker login -u me -p x r"]},
            "use --password-stdin",
        ),
        ("launcher", {"ssh_private_key": "k"}, "launcher has no machines: give one of aws, gcp, on_prem"),
    ],
)
def test_what_cannot_be_is_explained(path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validated(ClusterSpec, changed(path, value))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "hunter2hunter2"),
        ("HF_TOKEN", "hunter2hunter2"),
        ("DB_PASSWORD", 123_456_789),
        ("BACKUP_URL", "https://me:hunter2hunter2@example.org"),
    ],
)
def test_a_secrets_value_is_refused_and_not_repeated(name: str, value: Any) -> None:
    for path in ("env", "head.env", "train.env"):
        with pytest.raises(ConfigError) as raised:
            validated(ClusterSpec, changed(path, {name: value}))
        assert f"{name}: the value of a secret does not belong" in str(raised.value)
        assert str(value) not in str(raised.value)


@pytest.mark.parametrize(
    "name", ["GOOGLE_APPLICATION_CREDENTIALS", "AWS_WEB_IDENTITY_TOKEN_FILE", "TOKENIZERS_PARALLELISM"]
)
def test_where_a_secret_is_may_be_said(name: str) -> None:
    assert validated(ClusterSpec, changed("env", {name: "/etc/x"})).env == {name: "/etc/x"}


def test_an_image_is_pinned_by_its_digest() -> None:
    spec = validated(ClusterSpec, FULL)
    assert spec.train is not None
    assert is_pinned(spec.image_of(spec.train))
    assert not is_pinned(spec.image_of(spec.head))


def test_init_writes_a_description_that_is_complete_and_overwrites_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pets.yaml"
    assert run("cluster", "init", file).exit_code == 0
    spec = load_spec(file)
    assert set(spec.groups) == {"decode", "train", "serve"}
    checked = run("cluster", "check", file)
    assert checked.exit_code == 0, checked.output
    for word in ("decode", "0-8", "256.0", "pets-s3", "KubeRay: complete", "a digest is fixed"):
        assert word in checked.stdout
    before = file.read_text()
    again = run("cluster", "init", file)
    assert isinstance(again.exception, ConfigError)
    assert "is not overwritten" in str(again.exception)
    assert file.read_text() == before


def test_every_key_that_the_example_leaves_out_is_a_key(tmp_path: Path) -> None:
    """The lines that are commented out, taken in."""
    file = tmp_path / "pets.yaml"
    run("cluster", "init", file)
    head, *lines = file.read_text().split("\nname:", 1)
    assert head.startswith("#")
    taken = "\n".join(_uncommented(line) for line in f"name:{lines[0]}".splitlines())
    tree = load_yaml(taken, "example")
    tree["launcher"].pop("on_prem")
    spec = validated(ClusterSpec, tree)
    assert spec.launcher is not None
    assert spec.launcher.aws is not None
    assert spec.train is not None
    assert spec.train.gpu_kind == "nvidia-h100-80gb"


def _uncommented(line: str) -> str:
    bare = line.lstrip()
    if not re.match(r"# +[a-z_]+:", bare):
        return line
    return " " * (len(line) - len(bare)) + bare[2:]


@pytest.mark.parametrize(
    ("text", "says"), [("a: [", "not valid YAML"), ("- a", "expected keys and values"), ("name: a", "image is missing")]
)
def test_a_file_that_is_no_description_is_named(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as raised:
        load_spec(file)
    assert str(raised.value).startswith(str(file))
    with pytest.raises(ConfigError, match="does not exist; `raylens cluster init"):
        load_spec(tmp_path / "none.yaml")


def test_check_says_for_what_a_description_is_not_complete(tmp_path: Path) -> None:
    result = run("cluster", "check", written(tmp_path, changed("train.spot", True)))
    assert isinstance(result.exception, ConfigError)
    assert "train.spot = true" in str(result.exception)


SERVICE: dict[str, Any] = {
    "registry": "s3://models/registry",
    "models": [{"model": "pets@prod", "text": {"cpus": 4}, "image": {"cpus": 4}}],
    "security": {"keys": "/etc/raylens/keys/keys.json"},
}


def service_file(tmp_path: Path, tree: dict[str, Any]) -> Path:
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(tree))
    return file


def test_a_service_is_declared_for_the_pods_addresses(tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    serving = kuberay_service(validated(ClusterSpec, FULL), service_file(tmp_path, SERVICE | {"port": 8100}))
    declared = ServeDeploySchema.model_validate(yaml.safe_load(serving.config))
    assert declared.http_options is not None
    assert (declared.http_options.host, declared.http_options.port, serving.port) == ("0.0.0.0", 8100, 8100)
    assert declared.applications[0].args["registry"] == "s3://models/registry"


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("security", {}, "security.keys names no API keys"),
        ("security", {"keys": "keys.json"}, "security.keys = 'keys.json'"),
        ("registry", "registry", "registry = 'registry'"),
        ("registry", "/elsewhere/registry", "a path in a volume of the whole cluster"),
        ("models", [{"model": "a", "text": {"cpus": 9}}], "a replica of models.0.text takes 9 CPUs"),
        ("models", [{"model": "a", "image": {"gpus": 1}}], "has 8 and 0"),
        (
            "models",
            [{"model": "a", "text": {"cpus": 8, "min_replicas": 7, "max_replicas": 7}}],
            "the fewest replicas take 57",
        ),
    ],
)
def test_a_service_that_the_nodes_cannot_run_is_refused(tmp_path: Path, path: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        kuberay_service(validated(ClusterSpec, FULL), service_file(tmp_path, SERVICE | {path: value}))
    assert says in str(raised.value)


def test_a_service_without_keys_must_be_said_to_be_open(tmp_path: Path) -> None:
    spec, file = validated(ClusterSpec, FULL), service_file(tmp_path, SERVICE | {"security": {}})
    assert kuberay_service(spec, file, open_to_all=True).port == 8000
    mounted = service_file(tmp_path, SERVICE | {"registry": "/models/registry"})
    assert "/models/registry" in kuberay_service(spec, mounted).config


def test_all_that_is_complete_is_written_into_a_folder(tmp_path: Path) -> None:
    file, out = written(tmp_path, FULL), tmp_path / "manifests"
    command = ["--", "train", "vit_b32", "--set", "storage=s3://runs", "--set", "data.train=s3://data"]
    serve = ["--serve-config", service_file(tmp_path, SERVICE)]
    result = run("cluster", "render", "kuberay", file, *serve, "--out", out, *command)
    assert result.exit_code == 0, result.exception
    assert sorted(one.name for one in out.iterdir()) == ["cluster.yaml", "job.yaml", "service.yaml"]
    job = list(yaml.safe_load_all((out / "job.yaml").read_text()))[-1]
    assert job["spec"]["entrypoint"].startswith("raylens train vit_b32 --set storage=s3://runs")
    only = tmp_path / "only"
    assert run("cluster", "render", "kuberay", file, "--out", only).exit_code == 0
    assert [one.name for one in only.iterdir()] == ["cluster.yaml"]


def test_a_jobs_command_is_checked_and_its_files_travel(tmp_path: Path) -> None:
    file, mine = written(tmp_path, FULL), tmp_path / "mine.yaml"
    mine.write_text("recipe: vit_b32\nstorage: s3://runs\ndata: {train: s3://data}\n")
    ask: tuple[object, ...] = ("cluster", "render", "kuberay", file)
    manifests = list(yaml.safe_load_all(run(*ask, "--", "raylens", "train", mine).stdout))
    assert manifests[-1]["spec"]["entrypoint"] == "raylens train /etc/raylens/job/mine.yaml"
    [files] = [one for one in manifests if one["kind"] == "ConfigMap"]
    assert "s3://runs" in files["data"]["mine.yaml"]
    ask = (*ask, "--kind", "job")
    for command, says in (
        (["train", "vit_b33"], "vit_b33"),
        (["cluster", "check", "x"], "about clusters"),
        ([], "command"),
    ):
        error = run(*ask, "--", *command).exception
        assert isinstance(error, ConfigError)
        assert says in str(error)


def test_secrets_of_this_machine_do_not_get_into_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "abcdef123456")
    file = written(tmp_path, FULL)
    ask = ("cluster", "render", "kuberay", file, "--kind", "job", "--", "train", "vit_b32", "--set")
    error = run(*ask, "name=abcdef123456").exception
    assert isinstance(error, ConfigError)
    assert "abcdef" not in str(error)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--kind", "pod"], "--kind pod: it must be one of cluster, job, service"),
        (["--kind", "service"], "--serve-config"),
        (["--kind", "cluster", "--", "train", "vit_b32"], "a command is for --kind job"),
        (["--kind", "job", "--serve-config", "serve.yaml", "--", "train", "x"], "--serve-config is for --kind service"),
        (["--serve-config", "serve.yaml", "--", "train", "x"], "--kind job or --kind service"),
        (
            [
                "--name",
                "x",
                "--out",
                "m",
                "--",
                "train",
                "vit_b32",
                "--set",
                "storage=s3://a",
                "--set",
                "data.train=s3://b",
            ],
            "--name x",
        ),
    ],
)
def test_options_that_do_not_fit_are_explained(tmp_path: Path, options: list[str], says: str) -> None:
    error = run("cluster", "render", "kuberay", written(tmp_path, FULL), *options).exception
    assert isinstance(error, ConfigError)
    assert says in str(error)


def test_nothing_of_it_needs_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "RAY_", "RAYLENS_")):
            monkeypatch.delenv(name)
    assert validated(ClusterSpec, SMALL).token_secret == "small-token"


def test_a_path_may_end_with_a_slash() -> None:
    spec = validated(ClusterSpec, changed("volumes", [{"name": "a", "path": "/data/", "claim": "b"}]))
    assert spec.volumes[0].path == "/data"


def test_images_of_registries_are_taken() -> None:
    for image in ("raylens:1", "localhost:5000/a/raylens:0.1.0-cpu", "Example.org/a__b/c.d:V1_2", "[::1]:5000/a:1"):
        assert validated(ClusterSpec, changed("image", image)).image == image


def test_what_cannot_be_read_or_written_is_said(tmp_path: Path) -> None:
    file = written(tmp_path, SMALL)
    long = tmp_path / ("x" * 300)
    for words in (
        ("check", tmp_path),
        ("check", long),
        ("init", long),
        ("render", "ray-up", file, "--out", long),
        ("render", "kuberay", file, "--out", long),
    ):
        result = run("cluster", *words)
        assert isinstance(result.exception, ConfigError), (words, result.exception)
        assert "cannot be" in str(result.exception)


@pytest.mark.parametrize("words", [("kuberay", "--out", "."), ("ray-up", "--out", "cluster.yaml")])
def test_a_description_is_not_overwritten_by_what_is_rendered(
    tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    launcher = {"ssh_private_key": "k", "on_prem": {"head": "10.0.0.1"}}
    before = written(tmp_path, changed("launcher", launcher, changed("train.hosts", ["10.0.0.2", "10.0.0.3"])))
    text = before.read_text()
    monkeypatch.chdir(tmp_path)
    result = run("cluster", "render", words[0], "cluster.yaml", *words[1:])
    assert "would overwrite cluster.yaml" in str(result.exception)
    assert before.read_text() == text


def test_a_job_without_a_command_and_an_open_cluster_are_refused(tmp_path: Path) -> None:
    file = written(tmp_path, SMALL)
    job = run("cluster", "render", "kuberay", file, "--kind", "job")
    assert "a job needs a command" in str(job.exception)
    assert "--open" in str(run("cluster", "render", "kuberay", file, "--open").exception)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("port: 80", "port = 80 is Ray's own, or one that only root"),
        ("port: 8265", "port = 8265 is Ray's own"),
        ("registry: s3://me:hunter2@models/r", "a URI with a password"),
        ("registry: /models/../etc", "registry = '/etc'"),
    ],
)
def test_a_service_that_pods_cannot_have_is_refused(tmp_path: Path, more: str, says: str) -> None:
    tree = changed("serve", {"cpus": 4, "memory": "16Gi"})
    spec = validated(ClusterSpec, changed("volumes", [{"name": "m", "path": "/models", "claim": "m"}], tree))
    file = tmp_path / "serve.yaml"
    registry = "" if more.startswith("registry") else "registry: s3://m/r\n"
    file.write_text(f"{registry}{more}\nmodels: [{{model: pets@prod}}]\n")
    with pytest.raises(ConfigError, match=re.escape(says)) as raised:
        kuberay_service(spec, file, open_to_all=True)
    assert "hunter2" not in str(raised.value)
