"""Contexts of clusters, in a YAML file of one person: the address of each, its token, and the settings of its jobs."""

import os
import re
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

__all__ = ["ClusterContext", "ClusterContexts", "context_of", "contexts_file", "read_contexts", "update_contexts"]

FILE = "RAYLENS_CONTEXTS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ADD = "`raylens contexts add NAME http://HOST:8265` adds one"


class ClusterContext(Node):
    """What a command needs to know about one cluster in order to submit jobs to it."""

    address: str
    """Address of the cluster's dashboard, which has the Jobs API: ``http://host:8265``."""
    token_file: str | None = None
    """A file with the token that the cluster asks for; give at most one of ``token_file`` and ``token_env``."""
    token_env: str | None = None
    """Name of an environment variable of this machine that holds the token."""
    ca_file: str | None = None
    """File of the certificates to trust for ``https``, in place of the system's."""
    verify: bool = True
    """Whether the certificate of an ``https`` address is verified."""
    code: Literal["wheel", "image"] = "wheel"
    """What jobs run: the wheel of a checkout, which is uploaded with them, or the raylens of the cluster's image."""
    extras: tuple[str, ...] = ()
    """Extras of raylens that jobs install in addition to the wheel, such as ``wandb``."""
    env: dict[str, str] = {}  # noqa: RUF012 (pydantic copies it)
    """Environment variables of jobs, none of them secret, such as RAYLENS_REGISTRY or AWS_ENDPOINT_URL_S3."""
    secrets: tuple[str, ...] = ()
    """References to secrets of the cluster's nodes: NAME, NAME=env:OTHER, NAME=file:/path or NAME=path:/path."""
    resources: Resources = Resources()
    """Resources that a job's driver reserves."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_secret(cls, values: Any) -> Any:
        # Checked before the fields: an error about a field repeats its value, and these values may hold a secret.
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
            raise ValueError("ca_file needs verify = true: leave ca_file out, or verify")
        return self

    def token(self) -> str | None:
        """Read the token from the place that the context names; None if it names none.

        Raises:
            ConfigError: the place holds no token.
        """
        if self.token_env is not None:
            text = os.environ.get(self.token_env, "")
            where = f"token_env = {self.token_env!r}: set that variable to the token"
        elif self.token_file is not None:
            text = _read(Path(self.token_file).expanduser())
            where = f"token_file = {self.token_file!r}: put the token there, readable for you alone (chmod 600)"
        else:
            return None
        token = text.strip()
        if not token or not token.isascii() or any(letter.isspace() for letter in token):
            raise ConfigError(f"no token at {where}")
        return token

    @property
    def token_source(self) -> str:
        """Describe for messages where the token is kept."""
        if self.token_env is not None:
            return f"the variable {self.token_env}"
        return f"the file {self.token_file}" if self.token_file is not None else "nowhere: the context names none"


class ClusterContexts(Node):
    """All contexts of one person, by name, and the default among them."""

    default: str | None = None
    contexts: dict[str, ClusterContext] = {}  # noqa: RUF012 (pydantic copies it)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in self.contexts:
            if not NAME.fullmatch(name):
                raise ValueError(f"contexts.{name}: a name consists of letters, digits, '.', '_' and '-'")
        if self.default is not None and self.default not in self.contexts:
            raise ValueError(f"default = {self.default!r}: {self.known}")
        return self

    @property
    def known(self) -> str:
        """List the names of the contexts, as a part of a message."""
        return f"contexts: {', '.join(sorted(self.contexts))}" if self.contexts else f"there are no contexts; {ADD}"

    def get(self, name: str) -> ClusterContext:
        """Return the context of a name.

        Raises:
            ConfigError: no context has that name.
        """
        if name not in self.contexts:
            raise ConfigError(f"unknown context {name!r}; {self.known}")
        return self.contexts[name]

    def replaced(self, name: str, context: ClusterContext) -> "ClusterContexts":
        """Return a copy in which ``name`` stands for ``context``."""
        return self._changed({**self.contexts, name: context}, self.default)

    def without(self, name: str) -> "ClusterContexts":
        """Return a copy without a context; if it was the default, the copy has no default.

        Raises:
            ConfigError: no context has that name.
        """
        self.get(name)
        rest = {other: context for other, context in self.contexts.items() if other != name}
        return self._changed(rest, None if self.default == name else self.default)

    def using(self, name: str) -> "ClusterContexts":
        """Return a copy with another default.

        Raises:
            ConfigError: no context has that name.
        """
        self.get(name)
        return self._changed(self.contexts, name)

    def _changed(self, contexts: Mapping[str, ClusterContext], default: str | None) -> "ClusterContexts":
        return validated(ClusterContexts, {"default": default, "contexts": dict(contexts)})


def check_address(address: str) -> str:
    """Return the address of a dashboard without a slash at its end.

    Raises:
        ValueError: it is not such an address; the message repeats no credentials.
    """
    example = "write http://HOST:8265 or https://HOST"
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise ValueError(f"address: it cannot be parsed; {example}") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"address: it must hold no user or password (use token_file or token_env); {example}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"address = {address!r}: jobs are submitted to the dashboard; {_other_scheme(parts)}{example}")
    if parts.query or parts.fragment or any(letter.isspace() for letter in address):
        raise ValueError(f"address = {address!r}: it must hold no spaces, '?' or '#'; {example}")
    return address.rstrip("/")


def _other_scheme(parts: SplitResult) -> str:
    return "ray:// is Ray Client, another port; " if parts.scheme == "ray" else ""


def contexts_file() -> Path:
    """Return the file of contexts: ``$RAYLENS_CONTEXTS``, or ``raylens/contexts.yaml`` in the settings folder."""
    named = os.environ.get(FILE)
    if named:
        return Path(named).expanduser()
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "raylens" / "contexts.yaml"


def read_contexts() -> ClusterContexts:
    """Read the file of contexts; there are none if it does not exist.

    Raises:
        ConfigError: the file cannot be read, or is not a file of contexts.
    """
    file = contexts_file()
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ClusterContexts()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the contexts in {file}: {error}") from None
    try:
        return validated(ClusterContexts, load_yaml(text, str(file)) if text.strip() else {})
    except ConfigError as error:
        raise ConfigError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None


def update_contexts(change: Callable[[ClusterContexts], ClusterContexts]) -> Path:
    """Replace the file atomically by the result of ``change``; only its owner can read it.

    Raises:
        ConfigError: the file cannot be read or written, or ``change`` raises it.
    """
    file = contexts_file()
    with locked(file):
        replace_private(file, dump_yaml(change(read_contexts())))
    return file


def context_of(cluster: str | None) -> tuple[str, ClusterContext]:
    """Return the context that an option names, and the name to call it by in messages.

    Args:
        cluster: the name of a context, None for the default one, or an address. An address gets the token that Ray's
            own variables name: RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH; ~/.ray/auth_token if RAY_AUTH_MODE is token.

    Raises:
        ConfigError: no context has that name, or there is no default.
    """
    if cluster is not None and "://" in cluster:
        return cluster, validated(ClusterContext, {"address": cluster, **_ray_token()})
    contexts = read_contexts()
    name = cluster or contexts.default
    if name is None:
        raise ConfigError(f"which cluster? Give --cluster NAME, or `raylens contexts use NAME`; {contexts.known}")
    return name, contexts.get(name)


def _ray_token() -> dict[str, str]:
    """Return the place of the token that Ray's own variables name, as fields of a context."""
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
