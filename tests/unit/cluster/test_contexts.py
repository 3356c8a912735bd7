"""Contexts of clusters, in a file of one person."""

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.cluster.contexts import ClusterContext, ClusterContexts, context_of, read_contexts, update_contexts
from raylens.config import dump_yaml, load_yaml, validated
from raylens.errors import ConfigError

ADDRESS = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "mine" / "contexts.yaml"
    monkeypatch.setenv("RAYLENS_CONTEXTS", str(place))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return place


def context(**changes: object) -> ClusterContext:
    return validated(ClusterContext, {"address": ADDRESS, **changes})


def add(name: str, **changes: object) -> None:
    update_contexts(lambda contexts: contexts.replaced(name, context(**changes)))


def test_what_is_written_is_read_again_by_its_owner_alone(file: Path) -> None:
    add("lab", secrets=["A", "B=file:/b"], env={"X": "y"}, extras=["wandb"], resources={"cpus": 2})
    assert read_contexts().contexts["lab"].secrets == ("A", "B=file:/b")
    assert read_contexts().contexts["lab"].resources.cpus == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir() if "lock" not in one.name] == [file.name]


def test_the_default_is_used_until_it_is_removed() -> None:
    add("lab")
    add("team", address="https://ray.example.com/")
    with pytest.raises(ConfigError, match=r"--cluster NAME.*raylens contexts use NAME.*contexts: lab, team"):
        context_of(None)
    update_contexts(lambda contexts: contexts.using("team"))
    assert context_of(None) == ("team", context(address="https://ray.example.com"))
    assert context_of("lab")[0] == "lab"
    update_contexts(lambda contexts: contexts.without("team"))
    assert read_contexts() == ClusterContexts(contexts={"lab": context()})


@pytest.mark.parametrize("name", ["using", "without", "get"])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    add("lab")
    with pytest.raises(ConfigError, match=r"'lap'; contexts: lab$"):
        getattr(read_contexts(), name)("lap")
    update_contexts(lambda contexts: contexts.without("lab"))
    with pytest.raises(ConfigError, match="raylens contexts add"):
        context_of("lap")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"address": "ray://h:10001"}, "ray:// is Ray Client, another port; write http://HOST:8265"),
        ({"address": "h:8265"}, "jobs are submitted to the dashboard"),
        ({"address": "http://"}, "jobs are submitted to the dashboard"),
        ({"address": "http://h:port"}, "address: it cannot be parsed"),
        ({"address": "http://h/?a=b"}, "address = 'http://h/?a=b'"),
        ({"token_file": "a", "token_env": "B"}, "token_file and token_env: give one of them"),
        ({"ca_file": "a", "verify": False}, "leave ca_file out"),
        ({"token": "abc"}, "unknown key 'token'"),
        ({"code": "git"}, "code = 'git'"),
    ],
)
def test_what_a_context_cannot_be(tree: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        context(**tree)
    assert said in str(error.value)


@pytest.mark.parametrize("tree", [{"address": "http://me:hidden-1@h:8265"}, {"secrets": ["A=hidden-1"]}])
def test_no_message_repeats_what_may_be_secret(tree: dict[str, object], file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        context(**tree)
    assert "hidden-1" not in str(error.value)
    file.parent.mkdir()
    file.write_text(
        dump_yaml(ClusterContexts()).replace("{}", f"{{lab: {{address: {ADDRESS}, **}}}}").replace("**", "x: 1")
    )
    with pytest.raises(ConfigError, match=r"contexts\.yaml: unknown key 'contexts\.lab\.x'"):
        read_contexts()


def test_the_token_is_read_where_the_context_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context().token() is None
    (tmp_path / "token").write_text("abc\n")
    assert context(token_file=str(tmp_path / "token")).token() == "abc"
    monkeypatch.setenv("MINE", "def")
    assert context(token_env="MINE").token() == "def"
    for wrong in ({"token_file": str(tmp_path / "none")}, {"token_env": "NOT_SET"}):
        with pytest.raises(ConfigError, match="no token at token_"):
            context(**wrong).token()
    (tmp_path / "token").write_text("two words")
    with pytest.raises(ConfigError, match="no token at token_file"):
        context(token_file=str(tmp_path / "token")).token()


def test_an_address_takes_the_token_of_rays_own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert context_of(ADDRESS)[1].token() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert context_of(ADDRESS)[1].token_file == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/t")
    assert context_of(ADDRESS)[1].token_file == "/t"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    assert context_of(ADDRESS)[1].token() == "abc"


def test_nobody_loses_what_another_adds_at_the_same_time() -> None:
    threads = [threading.Thread(target=add, args=(f"c{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_contexts().contexts) == 12


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z][A-Za-z0-9._-]{0,20}\Z"), st.integers(1, 65535), max_size=5))
def test_contexts_survive_their_file(ports: dict[str, int]) -> None:
    contexts = ClusterContexts(contexts={name: context(address=f"http://h:{port}") for name, port in ports.items()})
    assert validated(ClusterContexts, load_yaml(dump_yaml(contexts), "x")) == contexts
