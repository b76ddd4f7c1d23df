"""S3, and what speaks like it, through boto3: the only file that knows boto3.

One request is one attempt: when to try again is decided by `capture/retry.py` alone. Bodies carry their MD5, which
every S3 checks, and their SHA-256 as metadata; an answer whose ETag is not the body's MD5 counts only if the store
then shows the object with its size and SHA-256, so that nothing between device and store can pass for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from lightkeeper.errors import (
    AgentError,
    DeliveryFailed,
    DestinationDenied,
    DestinationRefusing,
    DestinationUnreachable,
    ExtraMissing,
)
from lightkeeper.providers.awsanswers import service_refusal, status_of, timeouts
from lightkeeper.providers.base import Body, StoredObject

GONE = "NoSuchUpload"

PIECE_BYTES = 64 * 1024
"""How much of a streamed object is in memory at once, and at most lost of what had come when the connection breaks."""


@dataclass(frozen=True, slots=True)
class Download:
    """An object that is being read: its size, and its content in pieces. Reading raises a `DeliveryFailed`."""

    size_bytes: int
    pieces: Iterator[bytes]


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key with its secret; `session_token` where it is a temporary one."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class AwsStore:
    """One bucket. Credentials not given come from boto3's usual chain: environment, files, role of the machine."""

    def __init__(  # noqa: PLR0913  # where the bucket is, and whose credentials are used
        self,
        bucket: str,
        *,
        region: str | None,
        endpoint: str | None = None,
        attempts: int = 1,
        credentials: Credentials | None = None,
        session: Callable[[], Any] | None = None,
        denied: Callable[[], object] = lambda: None,
    ) -> None:
        """Take the bucket and where it is. With an `endpoint`, buckets are paths of it. Raises `ExtraMissing`.

        `session` gives the boto3 session whose credentials are used; `denied` is called when they are refused.

        More than one attempt is for those who read and have no back-off of their own.
        """
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise ExtraMissing("captures go to S3 with boto3, which is not installed", extra="aws") from error
        self._bucket = bucket
        given = {} if credentials is None else {f"aws_{name}": value for name, value in asdict(credentials).items()}
        own = boto3.session.Session(region_name=region, **given) if session is None else None
        self._session: Callable[[], Any] = session or (lambda: own)
        self._denied = denied
        self._config = Config(
            signature_version="s3v4",
            **timeouts(attempts),
            s3={"addressing_style": "path"} if endpoint else {},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        self._endpoint = endpoint
        self._made: Any = None
        self._made_by: Any = None

    def put(self, key: str, body: Body, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """See `ObjectStore.put`."""
        md5 = body.md5()
        with self._translated(key):
            answer = self._client.put_object(
                Bucket=self._bucket,
                Key=key,
                Body=body,
                ContentLength=body.size_bytes,
                ContentMD5=b64encode(md5).decode(),
                ContentType=content_type,
                Metadata=dict(metadata),
            )
        etag = _etag(answer)
        if etag != md5.hex() and "ServerSideEncryption" not in answer:  # an encrypted object's ETag is no MD5
            self._require(key, body.size_bytes, metadata)
        return etag

    def look(self, key: str) -> StoredObject | None:
        """See `ObjectStore.look`."""
        from botocore.exceptions import ClientError

        with self._translated(key):
            try:
                answer = self._client.head_object(Bucket=self._bucket, Key=key)
            except ClientError as error:
                if status_of(error) in {403, 404}:  # 403: not found, for one who may not list the bucket
                    return None
                raise
        return StoredObject(int(answer["ContentLength"]), _etag(answer), answer.get("Metadata", {}))

    def begin_upload(self, key: str, *, content_type: str, metadata: Mapping[str, str]) -> str:
        """See `ObjectStore.begin_upload`."""
        with self._translated(key):
            answer = self._client.create_multipart_upload(
                Bucket=self._bucket, Key=key, ContentType=content_type, Metadata=dict(metadata)
            )
        return str(answer["UploadId"])

    def put_part(self, key: str, upload: str, number: int, body: Body) -> str | None:
        """See `ObjectStore.put_part`."""
        md5 = body.md5()
        answer = self._unless_gone(
            "upload_part",
            key,
            UploadId=upload,
            PartNumber=number,
            Body=body,
            ContentLength=body.size_bytes,
            ContentMD5=b64encode(md5).decode(),
        )
        return None if answer is None else _etag(answer)

    def finish_upload(self, key: str, upload: str, etags: list[str]) -> str | None:
        """See `ObjectStore.finish_upload`."""
        parts = [{"PartNumber": number, "ETag": f'"{etag}"'} for number, etag in enumerate(etags, 1)]
        answer = self._unless_gone("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts})
        return None if answer is None else _etag(answer)

    def abort_upload(self, key: str, upload: str) -> None:
        """See `ObjectStore.abort_upload`."""
        self._unless_gone("abort_multipart_upload", key, UploadId=upload)

    def unfinished_uploads(self, prefix: str) -> Iterator[tuple[str, str]]:
        """See `ObjectStore.unfinished_uploads`."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            found = [(upload["Key"], upload["UploadId"]) for page in pages for upload in page.get("Uploads", [])]
        yield from found

    def keys(self, prefix: str) -> Iterator[str]:
        """Yield the key of each object under a prefix. Raises a `DeliveryFailed`."""
        with self._translated(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            found = [item["Key"] for page in pages for item in page.get("Contents", [])]
        yield from found

    def read(self, key: str) -> bytes | None:
        """Return an object's content, or None where there is no such object. Raises a `DeliveryFailed`."""
        answer = self._get(key)
        if answer is None:
            return None
        with self._translated(key), answer["Body"] as body:
            return bytes(body.read())

    def stream(self, key: str, offset: int = 0) -> Download | None:
        """Begin to read an object from an offset on; None where there is no such object. Raises a `DeliveryFailed`."""
        answer = self._get(key, **({"Range": f"bytes={offset}-"} if offset else {}))
        if answer is None:
            return None
        return Download(int(answer["ContentLength"]), self._pieces(key, answer["Body"]))

    def _pieces(self, key: str, body: Any) -> Iterator[bytes]:
        with self._translated(key), closing(body):
            yield from body.iter_chunks(PIECE_BYTES)

    def _get(self, key: str, **arguments: str) -> Any:
        from botocore.exceptions import ClientError

        with self._translated(key):
            try:
                return self._client.get_object(Bucket=self._bucket, Key=key, **arguments)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == "NoSuchKey":
                    return None
                raise

    def close(self) -> None:
        """See `ObjectStore.close`."""
        if self._made is not None:
            self._made.close()
            self._made = None

    @property
    def _client(self) -> Any:
        """The client; a new one after each fault, since boto3 looks for missing credentials only when it makes one.

        Another session is another client: credentials that were given up anywhere are used no more here.
        """
        session = self._session()
        if self._made is not None and self._made_by is not session:
            self.close()
        if self._made is None:
            self._made_by = session
            self._made = session.client("s3", endpoint_url=self._endpoint, config=self._config)
            self._made.meta.events.register("before-send.s3", _start_sending)
        return self._made

    def _unless_gone(self, operation: str, key: str, **arguments: object) -> Any:
        from botocore.exceptions import ClientError

        with self._translated(key):
            try:
                return getattr(self._client, operation)(Bucket=self._bucket, Key=key, **arguments)
            except ClientError as error:
                if error.response.get("Error", {}).get("Code") == GONE:
                    return None
                raise

    def _require(self, key: str, size_bytes: int, metadata: Mapping[str, str]) -> None:
        """Look at an object that was put, where the answer does not prove it."""
        found = self.look(key)
        if found is None or found.size_bytes != size_bytes or not metadata.items() <= found.metadata.items():
            raise DestinationUnreachable(
                "the answer to an upload was not the store's: the object is not there", bucket=self._bucket, key=key
            )

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        """Turn boto3's faults into the delivery's."""
        from botocore import exceptions as aws

        denied = (
            aws.NoCredentialsError,
            aws.PartialCredentialsError,
            aws.CredentialRetrievalError,
            aws.TokenRetrievalError,
        )
        try:
            yield
        except aws.ClientError as error:
            raise self._refusal(error, key) from error
        except denied as error:
            self.close()
            raise DestinationDenied(f"no credentials: {error}", bucket=self._bucket) from error
        except (aws.HTTPClientError, aws.ConnectionError, aws.IncompleteReadError) as error:
            inner = getattr(error, "kwargs", {}).get("error")
            if isinstance(inner, AgentError):  # raised by the body while it was sent
                raise inner from error
            raise DestinationUnreachable(
                f"the store cannot be reached: {error}", bucket=self._bucket, cause=type(error).__name__
            ) from error
        except (aws.BotoCoreError, ValueError) as error:
            raise DestinationRefusing(
                f"the request cannot be made: {error}", bucket=self._bucket, key=key, cause=type(error).__name__
            ) from error

    def _refusal(self, error: Any, key: str) -> DeliveryFailed:
        kind, status, code = service_refusal(error)
        if issubclass(kind, DestinationDenied):
            self._denied()
            self.close()
        said = error.response.get("Error", {}).get("Message", "")
        return kind(
            f"the store answered {status} {code}: {said}", bucket=self._bucket, key=key, status=status, code=code
        )


def _start_sending(request: Any, **_: object) -> None:
    """Tell a body that the network comes next; called by botocore when the request is signed."""
    start = getattr(request.body, "start_sending", None)
    if start is not None:
        start()


def _etag(answer: Any) -> str:
    return str(answer.get("ETag", "")).strip('"')
