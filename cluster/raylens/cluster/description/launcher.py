"""Machines for `ray up`: a cloud's, or your own over SSH."""

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from raylens.cluster.description.fields import AbsolutePath
from raylens.config import Node

__all__ = ["AwsSpec", "GcpSpec", "LauncherSpec", "OnPremSpec"]

Text = Annotated[str, Field(min_length=1)]
PASSWORD = re.compile(r"\blogin\b.*\s(-p|--password)[ =]")
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]


class AwsSpec(Node):
    """Machines of EC2 in a network that exists, without public addresses."""

    region: Text
    zones: Texts
    machine_image: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")]
    """One with Docker, and the driver of its GPUs if it has any."""
    subnets: Texts
    security_groups: Texts
    """Existing ones. Those that Ray would make let the whole internet reach SSH."""
    instance_profile: Text
    """ARN of the role by which all machines reach the bucket, and the head starts others."""
    key_name: Text
    """Of the key pair whose private key is ``ssh_private_key``."""


class GcpSpec(Node):
    """Machines of Compute Engine in a network that exists, without public addresses."""

    project: Text
    region: Text
    zone: Text
    machine_image: Text
    """One with Docker, and the driver of its GPUs if it has any."""
    subnetwork: Text
    """``projects/P/regions/R/subnetworks/S``; its firewall lets its own machines talk, and you in by SSH."""
    service_account: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """By which all machines reach the bucket, and the head starts others."""
    network_tags: tuple[Text, ...] = ()
    """By which the firewall's rules know the machines."""


class OnPremSpec(Node):
    """Your own machines; each group names its ``hosts``."""

    head: Text
    """Name or address of the head."""


class LauncherSpec(Node):
    """How `ray up` gets machines and into them."""

    aws: AwsSpec | None = None
    gcp: GcpSpec | None = None
    on_prem: OnPremSpec | None = None
    ssh_user: Text = "ubuntu"
    """Its number should be 1000, like that of the user in the image: it owns the file of the token."""
    ssh_private_key: Text
    """A file on the machine where `ray up` is called."""
    ssh_proxy_command: Text | None = None
    """Where machines are reached through another, e.g. ``ssh -W %h:%p bastion``."""
    token_file: Text = "~/.ray/auth_token"  # noqa: S105 (a place, not a token)
    """A file on the machine where `ray up` is called, which is copied to all others; `ray get-auth-token --generate`
    makes it."""
    env_file: AbsolutePath | None = None
    """A file that every machine has, with variables such as credentials, a line each."""
    before_container: tuple[Text, ...] = ()
    """Commands on each machine before its container starts, such as a login at the image's registry."""

    @field_validator("before_container", mode="after")
    @classmethod
    def _no_password(cls, commands: tuple[str, ...]) -> tuple[str, ...]:
        for command in commands:
            if PASSWORD.search(command):
                raise ValueError("a password does not belong into a command: use --password-stdin with a file")
        return commands

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name in ("aws", "gcp", "on_prem") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"launcher has {' and '.join(given) or 'no machines'}: give one of aws, gcp, on_prem")
        return self
