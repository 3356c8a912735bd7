"""Secrets travel as names and places, and what holds a value does not travel at all."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.cluster.secret_scan import check_text, check_variables
from raylens.cluster.secrets import VARIABLE, SecretReference, missing, provide
from raylens.errors import ClusterError, ConfigError

NAMES = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,20}\Z")


@given(
    NAMES, st.one_of(NAMES.map(lambda name: f"env:{name}"), st.sampled_from(["file:/a b/c", "path:/x=y"]), st.none())
)
def test_references_survive_as_text(name: str, place: str | None) -> None:
    secret = SecretReference.parse(name if place is None else f"{name}={place}")
    assert SecretReference.parse(str(secret)) == secret
    assert secret.name == name


@pytest.mark.parametrize(
    "text", ["A=hidden-1", "A=file:hidden-1", "A=env:hidden-1", "A=", "1A", "A B", "A=vault:hidden-1"]
)
def test_what_is_no_reference_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"write NAME \(a variable that the nodes have\)") as error:
        SecretReference.parse(text)
    assert "hidden-1" not in str(error.value)


def test_values_are_read_on_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("from a file\n")
    monkeypatch.setenv("THERE", "from a variable")
    monkeypatch.setenv("OTHER", "from another")
    texts = ["THERE", "AGAIN=env:OTHER", f"KEY=file:{tmp_path}/key", f"PLACE=path:{tmp_path}/key"]
    monkeypatch.setenv(VARIABLE, json.dumps(texts))
    for name in ("AGAIN", "KEY", "PLACE"):
        monkeypatch.delenv(name, raising=False)
    provide()
    import os

    values = {name: os.environ[name] for name in ("THERE", "AGAIN", "KEY", "PLACE")}
    for name in ("AGAIN", "KEY", "PLACE"):
        monkeypatch.delenv(name)
    assert values == {
        "THERE": "from a variable",
        "AGAIN": "from another",
        "KEY": "from a file",
        "PLACE": f"{tmp_path}/key",
    }


@pytest.mark.parametrize("text", ["A", "A=env:B", "A=file:/none", "A=path:/none"])
def test_what_a_node_lacks_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [sentence] = missing([SecretReference.parse(text)], {"B": ""})
    assert sentence.startswith("secret A is missing on node ")
    monkeypatch.setenv(VARIABLE, json.dumps([text]))
    monkeypatch.delenv("A", raising=False)
    monkeypatch.delenv("B", raising=False)
    with pytest.raises(ClusterError, match="secret A is missing"):
        provide()


def test_without_secrets_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    provide()


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "HF_TOKEN", "db_password", "AWS_SECRET_ACCESS_KEY", "VAULT_SECRET_ID"]
)
def test_variables_that_look_secret_do_not_travel(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--secret {name}$"):
        check_variables({name: "hidden-1"})
    check_variables({name: "/etc/secret"})
    check_variables({"AWS_ACCESS_KEY_ID": "AKIA", "TOKENIZERS_PARALLELISM": "false"})


def test_text_with_a_secret_does_not_travel() -> None:
    environment = {"HF_TOKEN": "hidden-123", "SHORT_TOKEN": "abc", "HOME": "/home/me-and-more"}
    for text in ("--set a=hidden-123", "s3://b?x=hidden-123", "http://me:pass@h/"):
        with pytest.raises(ConfigError) as error:
            check_text("the command", ["train", text], environment)
        assert text not in str(error.value)
        assert "hidden-123" not in str(error.value)
    check_text("the command", ["abc", "/home/me-and-more", "s3://b?endpoint_override=http://h:9000"], environment)
