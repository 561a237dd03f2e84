"""`/images/...`: list, inspect, history, tag, remove, prune. Everything that moves bytes is in `transfers`."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Filters, Request, Routes
from lamina.daemon.docker.shapes import Known, familiar, history, inspected, page, short, summary
from lamina.engine.images import find_image, open_store
from lamina.engine.upkeep.amounts import parse_seconds
from lamina.errors import Error, InputError
from lamina.image.assemble import Image
from lamina.image.view import iter_manifests, load_image
from lamina.oci.digest import Digest
from lamina.oci.reference import Reference
from lamina.store.store import Store, StoredImage

_LIST_FILTERS = frozenset({"dangling", "label", "before", "since", "reference", "until"})
_PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})


class Images:
    """Handlers over the images below one state directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("GET", "/images/json", self.list)
        routes.add("POST", "/images/prune", self.prune)
        routes.add("GET", "/images/{name:path}/json", self.inspect)
        routes.add("GET", "/images/{name:path}/history", self.history)
        routes.add("POST", "/images/{name:path}/tag", self.tag)
        routes.add("DELETE", "/images/{name:path}", self.remove)

    def list(self, request: Request) -> None:
        """List images, newest first."""
        store = open_store(self._root)
        filters = dict(request.query.filters(_LIST_FILTERS))
        if request.query.text("filter"):  # what filters were before there were filters
            filters["reference"] = (request.query.text("filter"),)
        patterns = filters.pop("reference", ())
        images = [_with_matching_names(known, patterns) if patterns else known for known in known_images(store)]
        rows = [known for known in page(images) if (known.names or not patterns) and _wanted(store, known, filters)]
        request.exchange.reply(200, [summary(known, request.version) for known in rows])

    def inspect(self, request: Request) -> None:
        """Show one image."""
        known, image = self._look(request)
        request.exchange.reply(200, inspected(known, image, request.version))

    def history(self, request: Request) -> None:
        """Show what made an image."""
        request.exchange.reply(200, history(*self._look(request)))

    def tag(self, request: Request) -> None:
        """Give an image another name."""
        store = open_store(self._root)
        found = find(store, request.names["name"])
        target = named(request.query.text("repo"), request.query.text("tag"))
        if target.digest is not None:
            raise ApiError(400, "refusing to create a tag with a digest reference")
        store.tag(str(target), found.descriptor, keep_dangling=True)
        request.exchange.reply(201)

    def remove(self, request: Request) -> None:
        """Take a name away, and the image with its last one."""
        store = open_store(self._root)
        request.exchange.reply(200, remove(store, request.names["name"], force=request.query.flag("force")))

    def prune(self, request: Request) -> None:
        """Remove images without a name; with dangling=false all, since no container needs one."""
        store = open_store(self._root)
        filters = request.query.filters(_PRUNE_FILTERS)
        only_nameless = _is_on(filters.get("dangling", ("true",)))
        gone: list[dict[str, str]] = []
        for known in known_images(store):
            if (only_nameless and known.names) or not _prunable(known, filters):
                continue
            gone += _drop(store, known)
        # what they were made of goes with the next collection of garbage, unless the cache still wants it
        request.exchange.reply(200, {"ImagesDeleted": gone or None, "SpaceReclaimed": 0})

    def _look(self, request: Request) -> tuple[Known, Image]:
        store, name = open_store(self._root), request.names["name"]
        found = find(store, name)
        image = load_image(store, found.descriptor, where=name)
        known = _known(store, [one for one in store.images() if one.descriptor.digest == found.descriptor.digest])
        return known, image


def find(store: Store, name: str) -> StoredImage:
    """Return the image of a name or (beginning of an) ID.

    Raises:
        ApiError: 404 where there is none, 400 where the beginning fits several.
    """
    try:
        return find_image(store, name)
    except InputError as error:
        if store.resolve_id(name):
            raise ApiError(400, str(error), error.hint) from error
        shown = name
        try:
            shown = Reference.parse(name).familiar() if not name.startswith("sha256:") else name
        except InputError:
            pass
        raise ApiError(404, f"No such image: {shown[:300]}") from error


def named(repository: str, tag: str) -> Reference:
    """Return the reference that the fields `repo` and `tag` make.

    Raises:
        InputError: it is none.
    """
    if not tag:
        return Reference.parse(repository)
    separator = "@" if ":" in tag else ":"
    return Reference.parse(f"{repository}{separator}{tag}")


def known_images(store: Store) -> list[Known]:
    """Return all images, each once with all its names."""
    groups: dict[Digest, list[StoredImage]] = {}
    for image in store.images():
        groups.setdefault(image.descriptor.digest, []).append(image)
    return [_known(store, group) for group in groups.values()]


def _known(store: Store, group: Iterable[StoredImage]) -> Known:
    entries = list(group)
    descriptor = entries[0].descriptor
    names = tuple(entry.name for entry in entries if entry.name)
    try:
        images = tuple(load_image(store, one) for one in iter_manifests(store, descriptor))
    except Error:
        images = ()  # a damaged one is listed, so that it can be removed
    image_id = images[0].id if len(images) == 1 else descriptor.digest
    return Known(str(image_id), descriptor, names, images)


def remove(store: Store, name: str, *, force: bool) -> list[dict[str, str]]:
    """Take away a name, or by an ID all names of an image, and return what went, as docker tells it.

    Raises:
        ApiError: there is none; or an ID with names in several repositories, and no force.
    """
    found = find(store, name)
    same = [one for one in store.images() if one.descriptor.digest == found.descriptor.digest]
    known = _known(store, same)
    try:
        reference = Reference.parse(name)
    except InputError:
        reference = None
    if reference is not None and reference.digest is None and str(reference) in known.names:
        if len(known.names) > 1:
            store.untag(str(reference))
            return [{"Untagged": reference.familiar()}]
        return _drop(store, known)
    repositories = {one.rpartition(":")[0] for one in known.names}
    if len(repositories) > 1 and not force:
        what = f"conflict: unable to delete {short(known.id)} (must be forced)"
        raise ApiError(409, f"{what} - image is referenced in multiple repositories")
    return _drop(store, known)


def _drop(store: Store, known: Known) -> list[dict[str, str]]:
    gone = store.untag_digest(known.descriptor.digest)
    return [*({"Untagged": familiar(name)} for name in gone), {"Deleted": known.id}]


def _wanted(store: Store, known: Known, filters: Filters) -> bool:
    """Tell whether an image passes all filters; of one filter's values any will do, of labels all must."""
    tests: dict[str, Callable[[tuple[str, ...]], bool]] = {
        "dangling": lambda values: _is_on(values) == (not known.names),
        "label": lambda values: _has_labels(known, values),
        "before": lambda values: all(known.created < _created(store, value) for value in values),
        "since": lambda values: all(known.created > _created(store, value) for value in values),
        "until": lambda values: all(known.created <= moment(value) for value in values),
    }
    return all(tests[name](values) for name, values in filters.items())


def _with_matching_names(known: Known, patterns: tuple[str, ...]) -> Known:
    """Return an image with those names only that fit one of the patterns."""
    names = tuple(name for name in known.names if any(_matches(name, pattern) for pattern in patterns))
    return replace(known, names=names)


def _prunable(known: Known, filters: Filters) -> bool:
    if any(known.created > moment(value) for value in filters.get("until", ())):
        return False
    if any(_has_labels(known, (value,)) for value in filters.get("label!", ())):
        return False
    return _has_labels(known, filters.get("label", ()))


def _is_on(values: tuple[str, ...]) -> bool:
    return any(value.lower() in ("1", "true") for value in values)


def _has_labels(known: Known, wanted: tuple[str, ...]) -> bool:
    labels: dict[str, Any] = known.labels
    for text in wanted:
        name, has_value, value = text.partition("=")
        if name not in labels or (has_value and labels[name] != value):
            return False
    return True


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a name fits docker's pattern: with or without its tag, `*` not beyond a slash."""
    shown = familiar(name)
    return any(
        text.count("/") == pattern.count("/") and fnmatch.fnmatchcase(text, pattern)
        for text in (shown, shown.rpartition(":")[0], name, name.rpartition(":")[0])
    )


def _created(store: Store, name: str) -> float:
    found = find(store, name)
    return _known(store, [found]).created


def moment(text: str) -> float:
    """Return a point in time: seconds since the epoch, an RFC 3339 time, or how long ago (`24h`).

    Raises:
        ApiError: it is none of them.
    """
    try:
        return float(text) if text.isascii() and text.isdecimal() else datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return time.time() - parse_seconds(text, "until")
    except InputError as error:
        raise ApiError(400, str(error)) from error
