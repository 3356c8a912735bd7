"""Types of values in a cluster's description: names, amounts of memory, images, environments."""

import re
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from raylens.cluster.niceness import LARGEST as LARGEST_NICENESS
from raylens.cluster.secret_scan import PASSWORD_IN_URL

__all__ = [
    "AbsolutePath",
    "Annotations",
    "Count",
    "Environment",
    "Image",
    "LabelKey",
    "LabelText",
    "Labels",
    "Minutes",
    "Name",
    "Niceness",
    "Positive",
    "Quantity",
    "ResourceName",
    "SecretKeys",
    "Selector",
    "bytes_of",
    "is_pinned",
]

UNITS = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
QUANTITY = re.compile(r"([0-9]{1,19}(?:\.[0-9]{1,9})?)(k|M|G|T|Ki|Mi|Gi|Ti)")
LARGEST = 2**63 - 1
"""The largest amount in bytes that Kubernetes can represent."""
MOST = 2**31 - 1
"""The largest number that Kubernetes accepts for nodes, retries and seconds."""
LONGEST_ANNOTATIONS = 256 * 1024
IMAGE = re.compile(
    r"(?:(?:[A-Za-z0-9][-A-Za-z0-9.]*|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?/)?[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
    r"(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*(?::[A-Za-z0-9_][-A-Za-z0-9_.]{0,127})?"
)
DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
DNS_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
LABEL_PART = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SECRET_FILE_KEY = re.compile(r"[-._a-zA-Z0-9]+")
SHORT, LONG = 63, 253
"""The most characters of a DNS label and of a DNS name."""
SECRET_WORDS = (
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "PASSWD",
    "ACCESS_KEY",
    "API_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
    "CONNECTION_STRING",
)
SECRET_ENDS = ("_KEY", "APIKEY", "_PASS")
NOT_SECRET_ENDS = (
    "_PATH",
    "_FILE",
    "_URI",
    "_URL",
    "_DIR",
    "_TTL",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "TOKENIZERS_PARALLELISM",
)
"""Endings of variables that say where a secret is or how it is used, rather than hold it."""
MANAGED = frozenset(
    {
        "RAY_ADDRESS",
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN",
        "RAY_AUTH_TOKEN_PATH",
        "RAY_CLOUD_INSTANCE_ID",
        "RAY_CLUSTER_NAME",
        "RAY_CLUSTER_NAMESPACE",
        "RAY_NODE_TYPE_NAME",
        "RAY_OVERRIDE_LABELS",
        "RAY_OVERRIDE_RESOURCES",
        "RAY_PORT",
        "RAY_REDIS_ADDRESS",
        "RAY_enable_autoscaler_v2",
        "REDIS_PASSWORD",
        "REDIS_USERNAME",
        "RAY_SERVE_ENABLE_HA_PROXY",
    }
)
"""Variables that raylens, Ray or KubeRay set; a value of the user's own would conflict with theirs."""


def bytes_of(quantity: str) -> int:
    """Return the bytes of an amount such as ``64Gi``."""
    match = QUANTITY.fullmatch(quantity)
    assert match is not None, f"{quantity!r} was validated"
    return int(Decimal(match[1]) * UNITS[match[2]])


def is_pinned(image: str) -> bool:
    """Return whether an image is named by its digest, so that its registry cannot replace it."""
    return "@sha256:" in image


def _quantity(value: str) -> str:
    if not QUANTITY.fullmatch(value) or bytes_of(value) <= 0:
        raise ValueError("write an amount with its unit, e.g. 64Gi or 500M")
    if bytes_of(value) > LARGEST:
        raise ValueError("write less: Kubernetes counts to 8 EiB")
    return value


def _name(value: str) -> str:
    if not DNS_LABEL.fullmatch(value) or len(value) > SHORT:
        raise ValueError(f"write at most {SHORT} lower-case letters, digits and '-', a letter or digit at both ends")
    return value


def _resource_name(value: str) -> str:
    if not DNS_NAME.fullmatch(value) or len(value) > LONG:
        raise ValueError(f"write at most {LONG} lower-case letters, digits, '-' and '.', as Kubernetes names things")
    return value


def _image(value: str) -> str:
    path, _, digest = value.partition("@")
    if not IMAGE.fullmatch(path):
        raise ValueError("write the name of an image without https://, in lower case, e.g. example.org/raylens:0.1.0")
    if digest:
        if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise ValueError("write a digest as @sha256: and 64 hexadecimal digits")
        return value
    tag = path.rpartition("/")[2].partition(":")[2]
    if tag in ("", "latest"):
        raise ValueError(
            "name a version, e.g. :0.1.0 or @sha256:...; without one, nodes that start later may get other code"
        )
    return value


def _labels(value: dict[str, str]) -> dict[str, str]:
    for key, text in value.items():
        _label_key(key)
        if text and not _fits(text):
            raise ValueError(f"{key} = {text!r}: at most {SHORT} letters, digits, '-', '_' and '.'")
    return value


def _label_key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _fits(name) or (slash and (not DNS_NAME.fullmatch(prefix) or len(prefix) > LONG)):
        raise ValueError(f"{key!r} is no key of a label: write name or example.org/name")
    return key


def _label_text(value: str) -> str:
    if value and not _fits(value):
        raise ValueError(f"write at most {SHORT} letters, digits, '-', '_' and '.', a letter or digit at both ends")
    return value


def _annotations(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        _label_key(key)
    size = sum(len(key.encode()) + len(text.encode()) for key, text in value.items())
    if size > LONGEST_ANNOTATIONS:
        raise ValueError(f"they have {size:,} bytes, Kubernetes takes {LONGEST_ANNOTATIONS:,} together; write less")
    return value


def _own_labels(value: dict[str, str]) -> dict[str, str]:
    for key in value:
        if key.startswith(("ray.io/", "raylens.io/")):
            raise ValueError(f"{key!r}: keys with ray.io/ and raylens.io/ are set by Ray and raylens; choose another")
    return _labels(value)


def _fits(part: str) -> bool:
    return LABEL_PART.fullmatch(part) is not None and len(part) <= SHORT


def _environment(value: object) -> object:
    """Check for secrets before any other validation, whose error might repeat the value."""
    if not isinstance(value, dict):
        return value
    for name, text in value.items():
        _environment_name(str(name))
        if _names_a_secret(str(name)) or PASSWORD_IN_URL.search(str(text)):
            raise ValueError(
                f"{name}: the value of a secret does not belong in this file; put it into a Secret of Kubernetes and "
                f"name that under credentials: - {{secret: NAME, keys: {{{name}: KEY}}}}"
            )
    return value


def _environment_name(name: str) -> str:
    if not ENVIRONMENT_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of an environment variable")
    if name in MANAGED:
        raise ValueError(f"{name} is set by raylens, Ray or KubeRay: leave it out")
    return name


def _names_a_secret(name: str) -> bool:
    upper = name.upper()
    suspicious = upper.endswith(SECRET_ENDS) or any(word in upper for word in SECRET_WORDS)
    return suspicious and not upper.endswith(NOT_SECRET_ENDS)


def _secret_keys(value: dict[str, str]) -> dict[str, str]:
    for name, key in value.items():
        _environment_name(name)
        if not SECRET_FILE_KEY.fullmatch(key) or len(key) > LONG:
            raise ValueError(f"{name} = {key!r} is no key of a Secret: letters, digits, '-', '_' and '.'")
    return value


def _absolute(value: str) -> str:
    value = value[:1] + value[1:].removesuffix("/")
    parts = value.split("/")
    odd = not value.isprintable() or any(letter in value for letter in ':,"')
    if not value.startswith("/") or odd or {"", ".", ".."} & set(parts[1:]):
        raise ValueError("write an absolute path without '..', '.', '//', ':', ',' and quotes, e.g. /data")
    return value


Positive = Annotated[int, Field(gt=0, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]
Niceness = Annotated[int, Field(ge=0, le=LARGEST_NICENESS)]
"""A niceness of processes: 0 is a fair share of the processors, 19 only what others leave."""
Minutes = Annotated[float, Field(gt=0, le=MOST // 60)]
"""A duration in minutes, which Kubernetes gets in seconds."""
Quantity = Annotated[str, AfterValidator(_quantity)]
"""An amount of memory or disk in bytes: ``64Gi``, ``500M``."""
Name = Annotated[str, Field(min_length=1), AfterValidator(_name)]
"""A name in the form of a DNS label."""
ResourceName = Annotated[str, Field(min_length=1), AfterValidator(_resource_name)]
"""The name of an object that exists in Kubernetes: a Secret, a claim, a service account."""
Image = Annotated[str, AfterValidator(_image)]
"""The name of a container image, with a version or a digest."""
Labels = Annotated[dict[str, str], AfterValidator(_own_labels)]
"""Labels that the user chooses, outside the domains of Ray and raylens."""
LabelKey = Annotated[str, AfterValidator(_label_key)]
"""The key of a label or a taint."""
LabelText = Annotated[str, AfterValidator(_label_text)]
"""The value of a label or a taint; it may be empty."""
Annotations = Annotated[dict[str, str], AfterValidator(_annotations)]
"""Annotations of pods and service accounts."""
Selector = Annotated[dict[str, str], AfterValidator(_labels)]
"""Labels by which nodes or pods of Kubernetes are selected."""
Environment = Annotated[dict[str, str], BeforeValidator(_environment)]
"""Environment variables, none of which is a secret."""
SecretKeys = Annotated[dict[str, str], AfterValidator(_secret_keys)]
"""Environment variables, and the keys of a Secret that have their values."""
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
