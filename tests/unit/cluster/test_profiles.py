"""Clusters by name, in a file of one person."""

import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.cluster.contexts import Profile, Profiles, profile_of, read_profiles, update_profiles
from raylens.config import dump_yaml, load_yaml, validated
from raylens.errors import ConfigError

ADDRESS = "http://127.0.0.1:8265"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "mine" / "clusters.yaml"
    monkeypatch.setenv("RAYLENS_CLUSTERS", str(place))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    return place


def profile(**changes: object) -> Profile:
    return validated(Profile, {"address": ADDRESS, **changes})


def add(name: str, **changes: object) -> None:
    update_profiles(lambda profiles: profiles.replaced(name, profile(**changes)))


def test_what_is_written_is_read_again_by_its_owner_alone(file: Path) -> None:
    add("lab", secrets=["A", "B=file:/b"], env={"X": "y"}, extras=["wandb"], resources={"cpus": 2})
    assert read_profiles().clusters["lab"].secrets == ("A", "B=file:/b")
    assert read_profiles().clusters["lab"].resources.cpus == 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert [one.name for one in file.parent.iterdir() if "lock" not in one.name] == [file.name]


def test_the_default_is_used_until_it_is_removed() -> None:
    add("lab")
    add("team", address="https://ray.example.com/")
    with pytest.raises(ConfigError, match=r"no cluster named: --cluster NAME.*known clusters: lab, team"):
        profile_of(None)
    update_profiles(lambda profiles: profiles.using("team"))
    assert profile_of(None) == ("team", profile(address="https://ray.example.com"))
    assert profile_of("lab")[0] == "lab"
    update_profiles(lambda profiles: profiles.without("team"))
    assert read_profiles() == Profiles(clusters={"lab": profile()})


@pytest.mark.parametrize("name", ["using", "without", "get"])
def test_an_unknown_name_is_told_the_known_ones(name: str) -> None:
    add("lab")
    with pytest.raises(ConfigError, match=r"^unknown cluster 'lap'; known clusters: lab$"):
        getattr(read_profiles(), name)("lap")
    update_profiles(lambda profiles: profiles.without("lab"))
    with pytest.raises(ConfigError, match="none is known; raylens clusters add"):
        profile_of("lap")


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"address": "ray://h:10001"}, "ray:// is Ray Client, another port; write http://HOST:8265"),
        ({"address": "h:8265"}, "jobs are submitted to the dashboard"),
        ({"address": "http://"}, "jobs are submitted to the dashboard"),
        ({"address": "http://h:port"}, "address: not one"),
        ({"address": "http://h/?a=b"}, "neither spaces nor"),
        ({"token_file": "a", "token_env": "B"}, "token_file and token_env: give one of them"),
        ({"ca_file": "a", "verify": False}, "leave ca_file out, or verify"),
        ({"token": "abc"}, "unknown key 'token'"),
        ({"code": "git"}, "code = 'git'"),
    ],
)
def test_what_a_profile_cannot_be(tree: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        profile(**tree)
    assert said in str(error.value)


@pytest.mark.parametrize("tree", [{"address": "http://me:hidden-1@h:8265"}, {"secrets": ["A=hidden-1"]}])
def test_no_message_repeats_what_may_be_secret(tree: dict[str, object], file: Path) -> None:
    with pytest.raises(ConfigError) as error:
        profile(**tree)
    assert "hidden-1" not in str(error.value)
    file.parent.mkdir()
    file.write_text(dump_yaml(Profiles()).replace("{}", f"{{lab: {{address: {ADDRESS}, **}}}}").replace("**", "x: 1"))
    with pytest.raises(ConfigError, match=r"clusters\.yaml: unknown key 'clusters\.lab\.x'"):
        read_profiles()


def test_the_token_is_read_where_the_profile_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile().token() is None
    (tmp_path / "token").write_text("abc\n")
    assert profile(token_file=str(tmp_path / "token")).token() == "abc"
    monkeypatch.setenv("MINE", "def")
    assert profile(token_env="MINE").token() == "def"
    for wrong in ({"token_file": str(tmp_path / "none")}, {"token_env": "NOT_SET"}):
        with pytest.raises(ConfigError, match="no token at token_"):
            profile(**wrong).token()
    (tmp_path / "token").write_text("two words")
    with pytest.raises(ConfigError, match="no token at token_file"):
        profile(token_file=str(tmp_path / "token")).token()


def test_an_address_takes_the_token_of_rays_own_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert profile_of(ADDRESS)[1].token() is None
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert profile_of(ADDRESS)[1].token_file == "~/.ray/auth_token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/t")
    assert profile_of(ADDRESS)[1].token_file == "/t"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "abc")
    assert profile_of(ADDRESS)[1].token() == "abc"


def test_nobody_loses_what_another_adds_at_the_same_time() -> None:
    threads = [threading.Thread(target=add, args=(f"c{number}",)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_profiles().clusters) == 12


@given(st.dictionaries(st.from_regex(r"\A[A-Za-z][A-Za-z0-9._-]{0,20}\Z"), st.integers(1, 65535), max_size=5))
def test_profiles_survive_their_file(ports: dict[str, int]) -> None:
    profiles = Profiles(clusters={name: profile(address=f"http://h:{port}") for name, port in ports.items()})
    assert validated(Profiles, load_yaml(dump_yaml(profiles), "x")) == profiles
