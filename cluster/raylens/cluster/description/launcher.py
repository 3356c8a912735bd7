"""The machines for `ray up`: those of a cloud, or your own over SSH."""

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
    """Machines of EC2 in an existing network, without public addresses."""

    region: Text
    zones: Texts
    machine_image: Annotated[str, Field(pattern=r"^ami-[0-9a-f]+$")]
    """A machine image with Docker, and with the GPU driver if the machines have GPUs."""
    subnets: Texts
    security_groups: Texts
    """Existing security groups. Those that Ray would create open SSH to the whole internet."""
    instance_profile: Text
    """ARN of the role with which all machines access the bucket, and the head starts others."""
    key_name: Text
    """Name of the key pair whose private key is ``ssh_private_key``."""


class GcpSpec(Node):
    """Machines of Compute Engine in an existing network, without public addresses."""

    project: Text
    region: Text
    zone: Text
    machine_image: Text
    """A machine image with Docker, and with the GPU driver if the machines have GPUs."""
    subnetwork: Text
    """``projects/P/regions/R/subnetworks/S``; its firewall must allow its machines to talk, and you to use SSH."""
    service_account: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")]
    """Account with which all machines access the bucket, and the head starts others."""
    network_tags: tuple[Text, ...] = ()
    """Tags by which the firewall's rules select the machines."""


class OnPremSpec(Node):
    """Your own machines, for which each group names its ``hosts``."""

    head: Text
    """Host name or address of the head."""


class LauncherSpec(Node):
    """How `ray up` obtains machines and logs in to them."""

    aws: AwsSpec | None = None
    gcp: GcpSpec | None = None
    on_prem: OnPremSpec | None = None
    ssh_user: Text = "ubuntu"
    """The login user. Its ID should be 1000, as in the image, because it owns the token's file."""
    ssh_private_key: Text
    """A key file on the machine where `ray up` is called."""
    ssh_proxy_command: Text | None = None
    """The command that reaches machines through another one, e.g. ``ssh -W %h:%p bastion``."""
    token_file: Text = "~/.ray/auth_token"  # noqa: S105 (a place, not a token)
    """The token's file on the machine where `ray up` is called, which is copied to all others; `ray get-auth-token
    --generate` creates it."""
    env_file: AbsolutePath | None = None
    """A file that every machine has, with one variable a line, such as credentials."""
    before_container: tuple[Text, ...] = ()
    """Commands on each machine before its container starts, such as a login at the image's registry."""

    @field_validator("before_container", mode="after")
    @classmethod
    def _no_password(cls, commands: tuple[str, ...]) -> tuple[str, ...]:
        for command in commands:
            if PASSWORD.search(command):
                raise ValueError("a command must hold no password: use --password-stdin with a file")
        return commands

    @model_validator(mode="after")
    def _one_kind_of_machines(self) -> Self:
        kinds = [name for name in ("aws", "gcp", "on_prem") if getattr(self, name) is not None]
        if len(kinds) != 1:
            raise ValueError(f"launcher has {' and '.join(kinds) or 'no machines'}: give one of aws, gcp, on_prem")
        return self
