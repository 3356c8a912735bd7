"""GET and PUT, repeated where botocore leaves that to its users."""

import contextlib
import time
from typing import TYPE_CHECKING, Any

from raylens.storage.s3_clients import ATTEMPTS
from raylens.storage.s3_errors import code_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["get_object", "put_object"]

PAUSE_SECONDS = 0.1
"""Before the second attempt; twice as long before each further one."""


def get_object(client: "S3Client", **request: Any) -> tuple[bytes, str]:
    """An object or a range of it, and its ETag; the bytes are empty where the range begins behind the end.

    botocore repeats a request until an answer begins; a body that breaks off, stalls or fails its checksum is
    fetched again here.

    Raises:
        ClientError: S3 refuses.
        BotoCoreError: no connection, or every attempt broke off.
    """
    from botocore.exceptions import (
        ClientError,
        FlexibleChecksumError,
        IncompleteReadError,
        ReadTimeoutError,
        ResponseStreamingError,
    )

    broken = (FlexibleChecksumError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
    try:
        for attempt in range(ATTEMPTS - 1):
            answer = client.get_object(**request)
            try:
                return _content(answer)
            except broken:
                time.sleep(PAUSE_SECONDS * 2**attempt)
        return _content(client.get_object(**request))
    except ClientError as error:
        if code_of(error) != "InvalidRange":
            raise
        return b"", ""


def _content(answer: "GetObjectOutputTypeDef") -> tuple[bytes, str]:
    with contextlib.closing(answer["Body"]) as body:
        return body.read(), answer["ETag"].strip('"')


def put_object(client: "S3Client", **request: Any) -> str:
    """Publish an object and return its ETag.

    S3 answers 409 to a conditional write that meets another one in flight. That decides nothing: repeated, it succeeds
    or finds its condition broken.

    Raises:
        ClientError: S3 refuses.
        BotoCoreError: no connection.
    """
    from botocore.exceptions import ClientError

    for attempt in range(ATTEMPTS - 1):
        try:
            return client.put_object(**request)["ETag"].strip('"')
        except ClientError as error:
            if code_of(error) != "ConditionalRequestConflict":
                raise
        time.sleep(PAUSE_SECONDS * 2**attempt)
    return client.put_object(**request)["ETag"].strip('"')
