"""The search for secrets in what is sent to a cluster, which shows a job's command, variables and files to others."""

import re
from collections.abc import Iterable, Mapping

from raylens.errors import ConfigError

__all__ = ["PASSWORD_IN_URL", "check_text", "check_variables"]

SECRET = re.compile(
    r"(^|_)(SECRETS?|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE)?_?KEY(?!_ID$))(_|$)", re.IGNORECASE
)
"""Matches names of variables that probably hold a secret; AWS_ACCESS_KEY_ID is a name, not a secret."""
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
SHORTEST = 8
"""The fewest letters of a value that is searched for: shorter values occur by chance."""
INSTEAD = "name the secret instead (--secret NAME); the cluster's nodes hold its value"


def check_text(what: str, texts: Iterable[str], environment: Mapping[str, str]) -> None:
    """Refuse text that holds a password in a URI, or the value of a secret variable of this machine.

    Args:
        what: names the texts in the message, which repeats none of them.
        texts: what would be sent to the cluster.
        environment: the variables of this machine.

    Raises:
        ConfigError: a text holds a password or the value of a secret variable.
    """
    known = {name: value for name, value in environment.items() if SECRET.search(name) and _searchable(value)}
    for text in texts:
        if PASSWORD_IN_URL.search(text):
            raise ConfigError(f"{what} holds a URI with a password, which the cluster would show to all; {INSTEAD}")
        for name, value in known.items():
            if value in text:
                raise ConfigError(f"{what} holds the value of ${name}, which the cluster would show to all; {INSTEAD}")


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse variables that are named like secrets, unless they name a file.

    Raises:
        ConfigError: a variable is named like a secret.
    """
    for name, value in variables.items():
        if SECRET.search(name) and not value.startswith("/"):
            raise ConfigError(f"--env {name} looks like a secret, which the cluster would show to all; --secret {name}")


def _searchable(value: str) -> bool:
    return len(value) >= SHORTEST and not value.startswith("/") and any(letter.isalnum() for letter in value)
