"""What must not travel with a job: a cluster shows its command line, variables and files to everybody who may ask."""

import re
from collections.abc import Iterable, Mapping

from raylens.errors import ConfigError

__all__ = ["PASSWORD_IN_URL", "check_text", "check_variables"]

SECRET = re.compile(
    r"(^|_)(SECRETS?|TOKEN|PASSWORD|PASSWD|CREDENTIALS?|(API|ACCESS|PRIVATE)?_?KEY(?!_ID$))(_|$)", re.IGNORECASE
)
"""In the name of a variable whose value is probably one; AWS_ACCESS_KEY_ID is a name, not a secret."""
PASSWORD_IN_URL = re.compile(r"://[^/@\s]*:[^/@\s]+@")
SHORTEST = 8
"""Letters of a value that can be looked for: fewer are found by chance."""
INSTEAD = "name it instead: --secret NAME, and the cluster's nodes have the value"


def check_text(what: str, texts: Iterable[str], environment: Mapping[str, str]) -> None:
    """Refuse text that holds a password in a URI, or the value of a secret variable of this machine.

    Args:
        what: the texts are, for the message, which repeats none of them.
        texts: that would travel.
        environment: of this machine.

    Raises:
        ConfigError: there is one.
    """
    known = {name: value for name, value in environment.items() if SECRET.search(name) and _telling(value)}
    for text in texts:
        if PASSWORD_IN_URL.search(text):
            raise ConfigError(f"{what} holds a URI with a password, which the cluster would show to all; {INSTEAD}")
        for name, value in known.items():
            if value in text:
                raise ConfigError(f"{what} holds the value of ${name}, which the cluster would show to all; {INSTEAD}")


def check_variables(variables: Mapping[str, str]) -> None:
    """Refuse variables that are named like secrets, unless they name a file.

    Raises:
        ConfigError: there is one.
    """
    for name, value in variables.items():
        if SECRET.search(name) and not value.startswith("/"):
            raise ConfigError(f"--env {name} looks like a secret, which the cluster would show to all; --secret {name}")


def _telling(value: str) -> bool:
    return len(value) >= SHORTEST and not value.startswith("/") and any(letter.isalnum() for letter in value)
