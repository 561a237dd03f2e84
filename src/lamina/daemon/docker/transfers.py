"""`/images/create`, `push`, `get`, `load`, `/distribution`: images that come and go, told as docker's daemon does."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from lamina.cancel import Cancel
from lamina.daemon.docker.builds import Builder
from lamina.daemon.docker.exchange import Exchange, GoneError, Stream
from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.images import find, named
from lamina.daemon.docker.imports import import_image
from lamina.daemon.docker.lines import Lines
from lamina.daemon.docker.routes import Request, Routes
from lamina.daemon.docker.uploads import HUB, credentials, decoded
from lamina.engine.images import open_store
from lamina.engine.options import Environment
from lamina.engine.place import Place
from lamina.engine.transfer import Side, load, pull, push
from lamina.errors import InputError, NetworkError
from lamina.exporter.protocol import Surroundings
from lamina.exporter.save import save_images
from lamina.oci.manifest import Manifest, parse_any
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.progress import Event, StatusEvent
from lamina.registry.failures import RegistryError
from lamina.session import Credentials
from lamina.store.store import Store

MAX_TAGS = 1000
_MAX_AUTH = 64 << 10
_TELL_EVERY_S = 0.1
_MOST_LINES = 500
"""Lines told while a body is still coming: a client that reads only afterwards must not block what takes it in."""


class Transfers:
    """Handlers that move images."""

    def __init__(self, environment: Environment, builder: Builder) -> None:
        self._environment, self._builder = environment, builder

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("POST", "/images/create", self.create)
        routes.add("POST", "/images/{name:path}/push", self.push)
        routes.add("GET", "/images/get", self.save)
        routes.add("GET", "/images/{name:path}/get", self.save)
        routes.add("POST", "/images/load", self.load)
        routes.add("GET", "/distribution/{name:path}/json", self.distribution)
        routes.add("POST", "/auth", self.login)

    # ---- pull ----

    def create(self, request: Request) -> None:
        """Pull an image, or all tags of a repository; or make one of an archive of files."""
        query = request.query
        if not query.text("fromImage"):
            import_image(self._environment, self._builder, request)
            return
        given, tag = query.text("fromImage"), query.text("tag")
        reference = named(given, tag)
        every = not tag and reference.digest is None and reference.tag == "latest" and not given.endswith(":latest")
        platform = str(Platform.parse(query.text("platform"))) if query.text("platform") else ""
        with self._telling(request, reference) as (lines, side):
            references = self._tags(reference, side) if every else [reference]
            for one in references:
                self._pull(one, platform, lines, side)

    def _tags(self, reference: Reference, side: Side) -> list[Reference]:
        with Place(self._environment, side.cancel, credentials=side.credentials) as place:
            tags = place.registry.tags(reference)
        if len(tags) > MAX_TAGS:
            raise InputError(f"{len(tags)} tags are more than the {MAX_TAGS} pulled at once")
        return [Reference(reference.registry, reference.repository, tag) for tag in tags]

    def _pull(self, reference: Reference, platform: str, lines: Lines, side: Side) -> None:
        store = open_store(self._environment.root)
        before = store.resolve(str(reference))
        bare = Reference(reference.registry, reference.repository).familiar()
        lines.status(f"Pulling from {bare}", id=reference.tag or str(reference.digest))
        row = pull(self._environment, str(reference), side, platform=platform)
        is_same = before is not None and str(before.digest) == row.digest
        lines.status(f"Digest: {row.digest}")
        what = "Image is up to date for" if is_same else "Downloaded newer image for"
        lines.status(f"Status: {what} {reference.familiar()}")

    # ---- push ----

    def push(self, request: Request) -> None:
        """Push an image, or all tags of a repository that are here."""
        store = open_store(self._environment.root)
        name, tag = request.names["name"], request.query.text("tag")
        reference = named(name, tag)
        if not request.exchange.header("x-registry-auth"):
            request.exchange.body(_MAX_AUTH)  # where very old clients put it
        references = [reference] if tag or ":" in name.rpartition("/")[2] else _tags_here(store, reference)
        bare = Reference(reference.registry, reference.repository).familiar()
        with self._telling(request, reference, moved="Pushed", moving="Pushing") as (lines, side):
            lines.status(f"The push refers to repository [{bare}]")
            if not references or any(store.resolve(str(one)) is None for one in references):
                raise ApiError(404, f"An image does not exist locally with the tag: {name[:300]}")
            for one in references:
                row = push(self._environment, str(one), side)
                found = store.resolve(str(one))
                size = found.size if found is not None else 0
                lines.status(f"{one.tag}: digest: {row.digest} size: {size}")
                lines.send({"progressDetail": {}, "aux": {"Tag": one.tag, "Digest": row.digest, "Size": size}})

    # ---- save, load ----

    def save(self, request: Request) -> None:
        """Send images as an archive."""
        names = [request.names["name"]] if "name" in request.names else request.query.texts("names")
        if not names:
            raise ApiError(400, "no image was named")
        exchange = request.exchange
        with exchange.gone() as cancel, Place(self._environment, cancel) as place:
            wanted = [_with_names(place.store, name) for name in names]
            with exchange.stream("application/x-tar") as stream:
                around = Surroundings(cancel, Path("/"), stdout=cast("BinaryIO", _Out(stream, cancel)))
                save_images(place.store, wanted, "-", around)

    def load(self, request: Request) -> None:
        """Take in an archive of images."""
        quiet = request.query.flag("quiet", default=True)
        with request.exchange.gone() as cancel, request.exchange.stream("application/json") as stream:
            lines = Lines(stream)
            teller = _Progress(lines, "Loading layer", "", most=0 if quiet else _MOST_LINES)
            body = cast("BinaryIO", _In(request.exchange))
            try:
                rows = load(self._environment, "-", Side(lambda _host: None, teller.sink, cancel), stdin=body)
            except GoneError:
                raise
            except Exception as error:
                lines.error(error)
                return
            for row in rows:
                lines.text(f"Loaded image: {row.name}\n" if row.name else f"Loaded image ID: {row.image_id}\n")

    # ---- what a registry has ----

    def distribution(self, request: Request) -> None:
        """Tell what a name stands for at its registry."""
        reference = Reference.parse(request.names["name"])
        with (
            request.exchange.gone() as cancel,
            Place(self._environment, cancel, credentials=_credentials(request.exchange, reference), pull=True) as place,
        ):
            try:
                descriptor, raw = place.registry.manifest(reference)
            except RegistryError as error:
                raise ApiError(404 if error.kind == "not found" else 500, str(error), error.hint) from error
            parsed = parse_any(raw, descriptor.media_type, str(reference))
            if isinstance(parsed, Manifest):
                platforms = [place.images.resolve(reference, None, cancel).config.platform]
            else:
                platforms = [one.platform for one in parsed.manifests if one.platform is not None]
        shown = {"mediaType": descriptor.media_type, "digest": str(descriptor.digest), "size": descriptor.size}
        request.exchange.reply(200, {"Descriptor": shown, "Platforms": [_platform(one) for one in platforms]})

    def login(self, request: Request) -> None:
        """Tell whether credentials open a registry; they are kept by the client, never here."""
        try:
            fields = json.loads(request.exchange.body(_MAX_AUTH))
        except (ValueError, RecursionError) as error:
            raise ApiError(400, "expected credentials as JSON") from error
        given = credentials(fields)
        address = fields.get("serveraddress") if isinstance(fields, dict) else None
        if given is None or not isinstance(address, str):
            raise ApiError(400, "expected credentials and the address of a registry")
        host = address.partition("://")[2] if "://" in address else address
        registry = Reference.parse(f"{host.partition('/')[0] or HUB[0]}/login").registry
        with (
            request.exchange.gone() as cancel,
            Place(self._environment, cancel, credentials=lambda _host: given) as place,
        ):
            try:
                place.registry.check_login(registry)
            except RegistryError as error:
                status = 401 if error.kind in ("unauthorized", "denied") else 500
                raise ApiError(status, str(error), error.hint) from error
        request.exchange.reply(200, {"IdentityToken": "", "Status": "Login Succeeded"})

    @contextmanager
    def _telling(
        self, request: Request, reference: Reference, *, moved: str = "Pull complete", moving: str = "Downloading"
    ) -> Iterator[tuple[Lines, Side]]:
        """Give where to tell of a transfer, and its side; what goes wrong in the block is told, too."""
        exchange = request.exchange
        with exchange.gone() as cancel, exchange.stream("application/json") as stream:
            lines = Lines(stream)
            side = Side(_credentials(exchange, reference), _Progress(lines, moving, moved).sink, cancel)
            try:
                yield lines, side
            except GoneError:
                raise
            except Exception as error:
                lines.error(error)


class _Progress:
    """Turns events of transfers into docker's lines: one thing at most ten times a second."""

    def __init__(self, lines: Lines, moving: str, moved: str, *, most: int | None = None) -> None:
        self._lines, self._moving, self._moved, self._most = lines, moving, moved, most
        self._told: dict[str, float] = {}
        self._guard = threading.Lock()

    def sink(self, event: Event) -> None:
        """Take an event."""
        if not isinstance(event, StatusEvent):
            return
        name = event.id.rpartition("/")[2].removeprefix("sha256:")[:12]
        done = event.completed is not None
        now = time.monotonic()
        with self._guard:
            if self._most == 0 or (not done and now - self._told.get(name, 0.0) < _TELL_EVERY_S):
                return
            self._told[name] = now
            if self._most is not None:
                self._most -= 1
        if done and self._moved:
            self._lines.status(self._moved, progressDetail={}, id=name)
        else:
            detail = {"current": event.current, "total": event.total}
            self._lines.status(self._moving, progressDetail=detail, id=name)


class _Out:
    """The stream of an answer as a file; who left ends what writes to it."""

    def __init__(self, stream: Stream, cancel: Cancel) -> None:
        self._stream, self._cancel = stream, cancel

    def write(self, data: bytes) -> int:
        """Send bytes."""
        try:
            return self._stream.write(data)
        except GoneError as error:
            self._cancel.cancel()
            raise BrokenPipeError from error

    def flush(self) -> None:
        """Do nothing."""


class _In:
    """The body of a request as a file."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def read(self, size: int = -1) -> bytes:
        """Return what comes next."""
        try:
            return self._exchange.read(size)
        except GoneError as error:
            raise NetworkError("the client stopped sending the archive") from error


def _credentials(exchange: Exchange, reference: Reference) -> Callable[[str], Credentials | None]:
    """Return the look-up in what came with the request; it is for one registry only, and not for its mirrors."""
    given = credentials(decoded(exchange.header("x-registry-auth")))
    hosts = HUB if reference.registry in HUB else (reference.registry,)
    return lambda host: given if host in hosts else None


def _tags_here(store: Store, reference: Reference) -> list[Reference]:
    """Return the names of a repository that are in the store."""
    prefix = f"{reference.registry}/{reference.repository}:"
    return [Reference.parse(image.name) for image in store.images() if image.name.startswith(prefix)]


def _with_names(store: Store, name: str) -> tuple[Any, tuple[str, ...]]:
    """Return an image with the names it is to have in an archive: none where it was named by its ID."""
    found = find(store, name)
    try:
        by_name = str(Reference.parse(name)) == found.name
    except InputError:
        by_name = False
    return found.descriptor, (found.name,) if by_name else ()


def _platform(platform: Platform) -> dict[str, str]:
    fields = {"architecture": platform.architecture, "os": platform.os}
    return fields | ({"variant": platform.variant} if platform.variant else {})
