"""Clusters by name: where each answers, which token it takes, what its jobs begin with. A YAML file of one person."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import model_validator

from raylens.cluster.driver_resources import Resources
from raylens.cluster.private_file import locked, replace_private
from raylens.cluster.secrets import SecretReference
from raylens.config import Node, dump_yaml, load_yaml, validated
from raylens.errors import ConfigError
from raylens.names import CLUSTER_NAME

__all__ = ["Profile", "Profiles", "profile_of", "profiles_file", "read_profiles", "update_profiles"]

FILE = "RAYLENS_CLUSTERS"
ADD = "raylens clusters add NAME http://HOST:8265"


class Profile(Node):
    """One cluster."""

    address: str
    """Of its dashboard, which has the Jobs API: ``http://host:8265``."""
    token_file: str | None = None
    """A file with the token that the cluster asks for; at most one of the two is given."""
    token_env: str | None = None
    """A variable of this machine's environment with the token."""
    ca_file: str | None = None
    """Certificates to trust for ``https``, besides none of the system's."""
    verify: bool = True
    """Whether ``https`` has to prove who answers."""
    code: Literal["wheel", "image"] = "wheel"
    """What jobs run: the wheel of a checkout that travels with them, or the raylens that the cluster's image has."""
    extras: tuple[str, ...] = ()
    """Extras of raylens that jobs install beside the wheel, such as ``wandb``."""
    env: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    """Variables of jobs, none of them secret, such as RAYLENS_REGISTRY or AWS_ENDPOINT_URL_S3."""
    secrets: tuple[str, ...] = ()
    """References to what jobs find on the cluster's nodes: NAME, NAME=env:OTHER, NAME=file:/path, NAME=path:/path."""
    resources: Resources = Resources()
    """What a job's driver reserves."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_secret(cls, values: Any) -> Any:
        # Before the fields: a complaint about a field repeats its value, and these may hold what nobody should see.
        if not isinstance(values, dict):
            return values
        address, secrets = values.get("address"), values.get("secrets")
        if isinstance(address, str):
            values = values | {"address": check_address(address)}
        if isinstance(secrets, list | tuple) and all(isinstance(secret, str) for secret in secrets):
            values = values | {"secrets": [str(SecretReference.parse(secret)) for secret in secrets]}
        return values

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("token_file and token_env: give one of them")
        if self.ca_file is not None and not self.verify:
            raise ValueError("verify = false does without certificates: leave ca_file out, or verify")
        return self

    def token(self) -> str | None:
        """The token, read where the profile says it is; None where it names none.

        Raises:
            ConfigError: it is not there, or empty.
        """
        if self.token_env is not None:
            found = os.environ.get(self.token_env, "")
            where = f"token_env = {self.token_env!r}: set that variable to the token"
        elif self.token_file is not None:
            found = _read(Path(self.token_file).expanduser())
            where = f"token_file = {self.token_file!r}: put the token there, readable for you alone (chmod 600)"
        else:
            return None
        token = found.strip()
        if not token or not token.isascii() or any(letter.isspace() for letter in token):
            raise ConfigError(f"no token at {where}")
        return token

    @property
    def token_source(self) -> str:
        """Where the token is, for messages."""
        if self.token_env is not None:
            return f"the variable {self.token_env}"
        return f"the file {self.token_file}" if self.token_file is not None else "nowhere: the profile names none"


class Profiles(Node):
    """All clusters that somebody has named."""

    default: str | None = None
    clusters: dict[str, Profile] = {}  # noqa: RUF012 (pydantic copies it)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.clusters:
            if not CLUSTER_NAME.fits(name):
                raise ValueError(f"clusters has {name!r}: {CLUSTER_NAME.fix}")
        if self.default is not None and self.default not in self.clusters:
            raise ValueError(f"default = {self.default!r}: {self.known}")
        return self

    @property
    def known(self) -> str:
        """The names, as a part of a message."""
        return f"known clusters: {', '.join(sorted(self.clusters))}" if self.clusters else f"none is known; {ADD}"

    def get(self, name: str) -> Profile:
        """A profile.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self.clusters:
            raise ConfigError(f"unknown cluster {name!r}; {self.known}")
        return self.clusters[name]

    def replaced(self, name: str, profile: Profile) -> "Profiles":
        """With one more, or another under its name."""
        return self._changed({**self.clusters, name: profile}, self.default)

    def without(self, name: str) -> "Profiles":
        """Without one; it is no longer the default either.

        Raises:
            ConfigError: there is none of that name.
        """
        self.get(name)
        rest = {other: profile for other, profile in self.clusters.items() if other != name}
        return self._changed(rest, None if self.default == name else self.default)

    def using(self, name: str) -> "Profiles":
        """With another default.

        Raises:
            ConfigError: there is none of that name.
        """
        self.get(name)
        return self._changed(self.clusters, name)

    def _changed(self, clusters: Mapping[str, Profile], default: str | None) -> "Profiles":
        return validated(Profiles, {"default": default, "clusters": dict(clusters)})


def check_address(address: str) -> str:
    """An address of a dashboard, without a slash at its end.

    Raises:
        ValueError: it is none; the message repeats no credentials.
    """
    example = "write http://HOST:8265 or https://HOST"
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise ValueError(f"address: not one; {example}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"address: no user or password belongs into it (use token_file or token_env); {example}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"address = {address!r}: jobs are submitted to the dashboard; {_other_scheme(parts)}{example}")
    if parts.query or parts.fragment or any(letter.isspace() for letter in address):
        raise ValueError(f"address = {address!r}: neither spaces nor '?' or '#' belong into it; {example}")
    return address.rstrip("/")


def _other_scheme(parts: SplitResult) -> str:
    return "ray:// is Ray Client, another port; " if parts.scheme == "ray" else ""


def profiles_file() -> Path:
    """Where the profiles are: ``$RAYLENS_CLUSTERS``, or ``raylens/clusters.yaml`` in the folder for settings."""
    named = os.environ.get(FILE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "raylens" / "clusters.yaml"


def read_profiles() -> Profiles:
    """The profiles; none where there is no file.

    Raises:
        ConfigError: the file cannot be read, or is no file of profiles.
    """
    file = profiles_file()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Profiles()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the profiles in {file}: {error}") from None
    try:
        return validated(Profiles, load_yaml(text, str(file)) if text.strip() else {})
    except ConfigError as error:
        raise ConfigError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None


def update_profiles(change: Callable[[Profiles], Profiles]) -> Path:
    """Replace the file at once by what ``change`` makes of it, readable for its owner alone.

    Raises:
        ConfigError: it cannot be read or written, or what ``change`` raises.
    """
    file = profiles_file()
    with locked(file):
        replace_private(file, dump_yaml(change(read_profiles())))
    return file


def profile_of(cluster: str | None) -> tuple[str, Profile]:
    """The profile that is meant, with the name to call it by.

    Args:
        cluster: a profile's name, None for the default profile, or an address, to which goes the token that Ray's own
            variables name: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH; ~/.ray/auth_token where RAY_AUTH_MODE is token.

    Raises:
        ConfigError: it is neither, or none was named and there is no default.
    """
    if cluster is not None and "://" in cluster:
        return cluster, validated(Profile, {"address": cluster, **_ray_token()})
    profiles = read_profiles()
    name = cluster or profiles.default
    if name is None:
        raise ConfigError(f"no cluster named: --cluster NAME, or `raylens clusters use NAME`; {profiles.known}")
    return name, profiles.get(name)


def _ray_token() -> dict[str, str]:
    """Where Ray's own variables say that the token is, as fields of a profile."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return {"token_env": "RAY_AUTH_TOKEN"}
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return {"token_file": named or "~/.ray/auth_token"}
    return {}


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
