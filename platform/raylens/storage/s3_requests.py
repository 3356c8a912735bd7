"""PUT, repeated where botocore leaves that to its users."""

import time
from typing import TYPE_CHECKING, Any

from raylens.storage.s3.clients import ATTEMPTS
from raylens.storage.s3.errors import code_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["put_object"]

PAUSE_SECONDS = 0.1
"""Before the second attempt; twice as long before each further one."""


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
