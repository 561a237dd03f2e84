"""`type=azblob`: a cache in Azure blob storage. Needs azure-storage-blob (`pip install lamina[azblob]`).

Names of attributes are BuildKit's (docs, "Azure Blob Storage cache"): `account_url`, `account_name`, `container`,
`prefix`, `name`, `secret_access_key`. Without a key `AZURE_STORAGE_KEY` or a SAS token in the URL is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from lamina.cache.backend import CacheError
from lamina.cache.backends.objects import ObjectCache, StoredObject, gone
from lamina.cache.spec import CacheSpec
from lamina.cancel import Cancel
from lamina.errors import InputError, MachineError

_DEFAULT_CONTAINER = "buildkit-cache"
_BACKOFF_S, _RETRIES, _CONNECT_S, _READ_S = 1, 3, 10, 60


def open_azblob(spec: CacheSpec, variables: Mapping[str, str], cancel: Cancel) -> ObjectCache:
    """Return the cache that the attributes name; its container is made when it is not there.

    Raises:
        MachineError: azure-storage-blob is not installed.
        InputError: no URL.
    """
    wanted = spec.attributes
    url = wanted.get("account_url") or variables.get("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL", "")
    if not urlsplit(url).hostname:
        raise InputError("cache type=azblob needs account_url=https://ACCOUNT.blob.core.windows.net")
    try:
        from azure.storage.blob import BlobServiceClient, LinearRetry
    except ImportError as error:
        raise MachineError("cache type=azblob needs azure-storage-blob", hint="pip install 'lamina[azblob]'") from error
    key = wanted.get("secret_access_key") or variables.get("AZURE_STORAGE_KEY", "")
    account = wanted.get("account_name") or str(urlsplit(url).hostname).partition(".")[0]
    credential = {"account_name": account, "account_key": key} if key else None
    # its own default waits for minutes where a build has better things to do
    retry = LinearRetry(backoff=_BACKOFF_S, retry_total=_RETRIES, random_jitter_range=1)
    service = BlobServiceClient(
        url, credential=credential, retry_policy=retry, connection_timeout=_CONNECT_S, read_timeout=_READ_S
    )
    container = service.get_container_client(wanted.get("container") or _DEFAULT_CONTAINER)
    prefix = wanted.get("prefix", "")
    return ObjectCache(
        spec,
        _Azure(service, container, str(urlsplit(url).hostname), cancel),
        blobs=prefix + "blobs/",
        manifests=prefix + "manifests/",
        names=[name for name in wanted.get("name", "buildkit").split(";") if name],
    )


class _Azure:
    """Implements `ObjectStore` by Azure's own client, which is thread-safe."""

    def __init__(self, service: Any, container: Any, shown: str, cancel: Cancel) -> None:
        self._service, self._container, self._shown, self._cancel = service, container, shown, cancel
        self._made = False

    def list(self, prefix: str) -> Sequence[StoredObject]:
        try:
            with self._told(prefix):
                return [
                    StoredObject(item.name, item.size, item.last_modified.timestamp())
                    for item in self._container.list_blobs(name_starts_with=prefix)
                ]
        except _GoneError:
            return []  # no container yet

    def read(self, name: str, most: int) -> bytes | None:
        try:
            with self._told(name):
                data: bytes = self._container.download_blob(name, offset=0, length=most + 1).readall()
        except _GoneError:
            return None
        if len(data) > most:
            raise CacheError(f"an object of more than {most} bytes", where=self._shown)
        return data

    def write(self, name: str, data: bytes) -> None:
        self._make_container()
        with self._told(name):
            self._container.upload_blob(name, data, overwrite=True)

    def upload(self, name: str, source: BinaryIO, size: int) -> None:
        self._make_container()
        with self._told(name):
            self._container.upload_blob(name, source, length=size, overwrite=True, max_concurrency=4)

    def download(self, name: str, offset: int, take: Callable[[bytes], object]) -> None:
        with self._told(name):
            for piece in self._container.download_blob(name, offset=offset or None).chunks():
                self._cancel.check()
                take(piece)

    def touch(self, name: str) -> None:
        """Nothing: life cycle rules of Azure go by last access where they are meant for caches."""

    def delete(self, name: str) -> None:
        try:
            with self._told(name):
                self._container.delete_blob(name)
        except _GoneError:
            pass

    def close(self) -> None:
        self._service.close()

    def _make_container(self) -> None:
        from azure.core.exceptions import ResourceExistsError

        if self._made:
            return
        with self._told("the container"):
            try:
                self._container.create_container()
            except ResourceExistsError:
                pass
        self._made = True

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        """Turn Azure's errors into ours, without their texts: those may hold a signed URL."""
        from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

        try:
            yield
        except ResourceNotFoundError as error:
            raise _GoneError(name, self._shown) from error
        except HttpResponseError as error:
            code = getattr(error, "error_code", "") or ""
            raise CacheError(f"Azure refused: {error.status_code} {code}".rstrip(), where=self._shown) from None
        except AzureError as error:
            raise CacheError(f"Azure cannot be used: {type(error).__name__}", where=self._shown) from None


class _GoneError(CacheError):
    """An object is not there."""

    def __init__(self, name: str, where: str) -> None:
        super().__init__(gone(name, where).what, where=where)
