"""`type=s3`: a cache in Amazon's S3 or what speaks its protocol. Needs boto3 (`pip install lamina[s3]`).

Credentials come from the attributes, from the environment that was handed in, or from boto3's own chain (profiles,
container and instance roles, web identity). Names of attributes are BuildKit's (docs, "S3 cache").
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from lamina.cache.backend import CacheError
from lamina.cache.backends.objects import CutOffError, ObjectCache, StoredObject, gone, whole
from lamina.cache.spec import CacheSpec, parse_seconds
from lamina.cancel import Cancel
from lamina.errors import InputError, MachineError

_PART_BYTES = 16 << 20
_DEFAULT_REFRESH = "24h"
_NOT_THERE = ("404", "NoSuchKey", "NotFound")


def open_s3(spec: CacheSpec, variables: Mapping[str, str], cancel: Cancel) -> ObjectCache:
    """Return the cache that the attributes name.

    Raises:
        MachineError: boto3 is not installed.
        InputError: no bucket or region.
    """
    wanted = spec.attributes
    bucket = wanted.get("bucket") or variables.get("AWS_BUCKET", "")
    region = wanted.get("region") or variables.get("AWS_REGION", "") or variables.get("AWS_DEFAULT_REGION", "")
    if not bucket or not region:
        raise InputError("cache type=s3 needs bucket= and region= (or AWS_BUCKET and AWS_REGION)")
    prefix = wanted.get("prefix", "")
    return ObjectCache(
        spec,
        _S3(_client(spec, region, variables), bucket, spec.shown(), _whole(wanted, "upload_parallelism", 4), cancel),
        blobs=prefix + wanted.get("blobs_prefix", "blobs/"),
        manifests=prefix + wanted.get("manifests_prefix", "manifests/"),
        names=[name for name in wanted.get("name", "buildkit").split(";") if name],
        refresh_s=parse_seconds(wanted.get("touch_refresh", _DEFAULT_REFRESH), "touch_refresh"),
    )


def _client(spec: CacheSpec, region: str, variables: Mapping[str, str]) -> Any:
    try:
        import boto3
        from botocore.config import Config
    except ImportError as error:
        raise MachineError("cache type=s3 needs boto3", hint="pip install 'lamina[s3]'") from error
    wanted = spec.attributes
    keys = {
        "aws_access_key_id": wanted.get("access_key_id") or variables.get("AWS_ACCESS_KEY_ID"),
        "aws_secret_access_key": wanted.get("secret_access_key") or variables.get("AWS_SECRET_ACCESS_KEY"),
        "aws_session_token": wanted.get("session_token") or variables.get("AWS_SESSION_TOKEN"),
    }
    style = "path" if spec.flag("use_path_style", False) else "auto"
    retries = {"mode": wanted.get("retry_mode", "standard"), "max_attempts": _whole(wanted, "retry_max_attempts", 5)}
    config = Config(region_name=region, s3={"addressing_style": style}, retries=retries, max_pool_connections=16)
    session = boto3.session.Session()
    return session.client("s3", endpoint_url=wanted.get("endpoint_url") or None, config=config, **keys)


class _S3:
    """Implements `ObjectStore` by boto3; its clients are thread-safe."""

    def __init__(self, client: Any, bucket: str, shown: str, parallel: int, cancel: Cancel) -> None:
        self._client, self._bucket, self._shown = client, bucket, shown
        self._parallel, self._cancel = parallel, cancel

    def list(self, prefix: str) -> Sequence[StoredObject]:
        with self._told(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [
                StoredObject(item["Key"], item["Size"], item["LastModified"].timestamp())
                for page in pages
                for item in page.get("Contents", ())
            ]

    def read(self, name: str, most: int) -> bytes | None:
        try:
            with self._told(name):
                answer = self._client.get_object(Bucket=self._bucket, Key=name)
                data: bytes = answer["Body"].read(most + 1)
        except _GoneError:
            return None
        if len(data) > most:
            raise CacheError(f"an object of more than {most} bytes", where=self._shown)
        return data

    def write(self, name: str, data: bytes) -> None:
        with self._told(name):
            self._client.put_object(Bucket=self._bucket, Key=name, Body=data)

    def upload(self, name: str, source: BinaryIO, size: int) -> None:
        from boto3.s3.transfer import TransferConfig

        config = TransferConfig(_PART_BYTES, self._parallel, _PART_BYTES)
        with self._told(name):
            self._client.upload_fileobj(whole(source, size), self._bucket, name, Config=config)

    def download(self, name: str, offset: int, take: Callable[[bytes], object]) -> None:
        with self._told(name):
            extra = {"Range": f"bytes={offset}-"} if offset else {}
            body = self._client.get_object(Bucket=self._bucket, Key=name, **extra)["Body"]
            for piece in body.iter_chunks(1 << 20):
                self._cancel.check()
                take(piece)

    def touch(self, name: str) -> None:
        with self._told(name):
            source = {"Bucket": self._bucket, "Key": name}
            self._client.copy_object(Bucket=self._bucket, Key=name, CopySource=source, MetadataDirective="REPLACE")

    def delete(self, name: str) -> None:
        with self._told(name):
            self._client.delete_object(Bucket=self._bucket, Key=name)

    def close(self) -> None:
        self._client.close()

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn boto's errors into ours; its texts name codes and hosts, never keys."""
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import (
            BotoCoreError,
            ClientError,
            IncompleteReadError,
            ReadTimeoutError,
            ResponseStreamingError,
        )

        try:
            yield
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _NOT_THERE:
                raise _GoneError(name, self._shown) from error
            words = str(error.response.get("Error", {}).get("Message", ""))[:200]
            raise CacheError(f"S3 refused: {code}: {words}", where=self._shown) from error
        except (ResponseStreamingError, IncompleteReadError, ReadTimeoutError) as error:
            raise CutOffError(f"S3 broke off: {type(error).__name__}", where=self._shown) from error
        except (BotoCoreError, Boto3Error) as error:
            raise CacheError(f"S3 cannot be used: {type(error).__name__}: {error!s:.200}", where=self._shown) from error


class _GoneError(CacheError):
    """An object is not there."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(gone(name, where).what, where=where)


def _whole(wanted: Mapping[str, str], name: str, default: int) -> int:
    text = wanted.get(name, "")
    if text and not (text.isdecimal() and 0 < int(text[:6]) < 1000):
        raise InputError(f"cache type=s3: {name} is a number from 1 to 999, not {text!r}")
    return int(text) if text else default
