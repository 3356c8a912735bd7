"""URIs of stores of all kinds."""

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ConfigError
from raylens.storage import open_store

PART = st.text(st.characters(exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda part: part not in (".", "..") and not part.startswith(".raylens-")
)


@pytest.fixture(autouse=True)
def no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


class TestUris:
    @given(parts=st.lists(PART, max_size=4))
    def test_local_round_trip(self, parts: list[str]) -> None:
        store = open_store("/root")
        for part in parts:
            store /= part
        assert open_store(store.uri) == store == pickle.loads(pickle.dumps(store))
        assert hash(open_store(store.uri)) == hash(store)

    @given(
        parts=st.lists(PART, max_size=4),
        bucket=st.from_regex(r"[a-z0-9][a-z0-9-]{1,20}[a-z0-9]", fullmatch=True),
        options=st.fixed_dictionaries(
            {},
            optional={
                "endpoint_override": st.sampled_from(["http://127.0.0.1:9000", "https://s3.example.org", "host:1", ""]),
                "region": st.sampled_from(["eu-west-1", "us-east-1"]),
                "anonymous": st.sampled_from(["true", "false"]),
                "scheme": st.sampled_from(["http", "https"]),
            },
        ),
    )
    def test_s3_round_trip(self, parts: list[str], bucket: str, options: dict[str, str]) -> None:
        query = "&".join(f"{key}={value}" for key, value in options.items())
        store = open_store(f"s3://{bucket}?{query}")
        for part in parts:
            store /= part
        assert open_store(store.uri) == store == pickle.loads(pickle.dumps(store))
        assert store.describe() == "/".join([f"s3://{bucket}", *parts])

    @given(
        parts=st.lists(PART, max_size=4),
        bucket=st.from_regex(r"[a-z0-9][a-z0-9_-]{1,20}[a-z0-9]", fullmatch=True),
        options=st.fixed_dictionaries(
            {},
            optional={
                "endpoint_override": st.sampled_from(
                    ["http://127.0.0.1:9000", "https://gcs.example.org", "host:1", ""]
                ),
                "anonymous": st.sampled_from(["true", "false"]),
                "scheme": st.sampled_from(["http", "https"]),
            },
        ),
    )
    def test_gs_round_trip(self, parts: list[str], bucket: str, options: dict[str, str]) -> None:
        query = "&".join(f"{key}={value}" for key, value in options.items())
        store = open_store(f"gs://{bucket}?{query}")
        for part in parts:
            store /= part
        assert open_store(store.uri) == store == pickle.loads(pickle.dumps(store))
        assert store.describe() == "/".join([f"gs://{bucket}", *parts])

    def test_forms_of_a_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        wanted = open_store(tmp_path / "a b")
        for uri in ("a b", "./x/../a b", "~/a b", f"file://{tmp_path}/a%20b", f"{tmp_path}/a b/"):
            assert open_store(uri) == wanted
        assert wanted.uri == f"{tmp_path}/a b"

    def test_a_plain_path_is_taken_at_its_word(self, tmp_path: Path) -> None:
        open_store(f"{tmp_path}/a%20b?c=d#e&f").write("x%2F", b"")
        assert (tmp_path / "a%20b?c=d#e&f" / "x%2F").exists()

    def test_the_environment_is_read_when_the_store_is_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        general = open_store("s3://bucket/x")
        assert general.uri == "s3://bucket/x?region=eu-west-1&endpoint_override=http://general:1"
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://special:2")
        monkeypatch.setenv("AWS_REGION", "eu-west-2")
        assert open_store("s3://bucket/x").uri == "s3://bucket/x?region=eu-west-2&endpoint_override=http://special:2"
        assert open_store(general.uri) == general
        assert open_store("s3://bucket/x?scheme=http&endpoint_override=host:1") == open_store(
            "s3://bucket/x?endpoint_override=http://host:1"
        )

    def test_amazon_stays_amazon_on_a_machine_with_another_endpoint(self, monkeypatch: pytest.MonkeyPatch) -> None:
        amazon = open_store("s3://bucket/x")
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
        assert open_store(amazon.uri) == amazon

    @pytest.mark.parametrize(
        ("uri", "says"),
        [
            ("", "empty"),
            ("ftp://bucket/x", "scheme 'ftp'.*s3:// or gs://"),
            ("gs://Bucket/x", "bucket 'Bucket'.*up to 222"),
            ("gs://[bucket/x", "write gs://bucket/prefix"),
            ("gs://bucket/../x", "without '.' or '..'"),
            ("gs://bucket/x?region=eu", "'region'; allowed: endpoint_override, scheme, anonymous"),
            ("gs://bucket/x?anonymous=1", "true or false"),
            ("gs://bucket/x?endpoint_override=http://h/path", "endpoint_override.*without credentials or a path"),
            ("file://host/x", "file:///path"),
            ("~nobody-of-this-name/x", "home"),
            ("s3://ab/x", "bucket 'ab'.*3 to 63"),
            ("s3://Bucket/x", "bucket 'Bucket'"),
            ("s3://a..b/x", "bucket 'a..b'"),
            ("s3:///x", "bucket ''"),
            ("s3://[bucket/x", "not a URI"),
            ("s3://bucket/../x", "without '.' or '..'"),
            ("s3://bucket/x#y", "%23"),
            ("s3://bucket/x?endpoint=http://h", "'endpoint'; allowed: endpoint_override, region, scheme, anonymous"),
            ("s3://bucket/x?anonymous=maybe", "true or false"),
            ("s3://bucket/x?scheme=ftp", "http or https"),
            ("s3://bucket/x?endpoint_override=http://h/path", "endpoint_override.*without credentials or a path"),
        ],
    )
    def test_what_is_refused(self, uri: str, says: str) -> None:
        with pytest.raises(ConfigError, match=says):
            open_store(uri)

    @pytest.mark.parametrize(
        "uri",
        [
            "s3://key:hunter2@bucket/x",
            "s3://key:hun/hunter2@bucket/x",
            "s3://key:hunter2?@bucket/x",
            "s3://key:hunter2#@bucket/x",
            "ftp://key:hunter2@host/x",
            "gs://key:hunter2@bucket/x",
            "gs://bucket/x?access_token=hunter2",
            "s3://bucket/x?secret_key=hunter2",
            "s3://bucket/x?endpoint_override=http://key:hunter2@host:1",
        ],
    )
    def test_secrets_are_refused_and_not_repeated(self, uri: str) -> None:
        with pytest.raises(ConfigError) as caught:
            open_store(uri)
        assert "hunter2" not in str(caught.value)

    def test_secrets_of_the_environment_are_not_repeated(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://key:hunter2@host:1")
        with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL") as caught:
            open_store("s3://bucket/x")
        assert "hunter2" not in str(caught.value)
