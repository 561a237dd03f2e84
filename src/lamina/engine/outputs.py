"""From a solved chain to the outputs that were asked for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lamina.attest.values import Attestation
from lamina.cache.spec import parse_spec
from lamina.engine.docker import docker_load
from lamina.engine.options import BuildOptions, BuildResult
from lamina.engine.place import Place
from lamina.errors import InputError
from lamina.exporter.export import export
from lamina.exporter.outputs import OutputSpec, parse_output
from lamina.exporter.protocol import Keep, Outcome, PlatformResult, Receive, Result, Surroundings
from lamina.image.assemble import Image, LayerBlob, assemble
from lamina.layer.compress import Compression
from lamina.layer.entry import Item
from lamina.oci.descriptor import Descriptor
from lamina.oci.digest import Digest
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference
from lamina.progress import Sink, StatusEvent, VertexEvent
from lamina.snapshot.rows import LayerRef, LayerRow, parse_origin

_MULTI = "BUILDKIT_MULTI_PLATFORM"


@dataclass(frozen=True, slots=True)
class Plan:
    """The outputs of one build.

    Attributes:
        specs: in the order they were given; at least one.
        names: full references from the tags.
        load: hand the image to docker's engine as well.
    """

    specs: tuple[OutputSpec, ...]
    names: tuple[str, ...]
    load: bool = False

    @property
    def files_wanted(self) -> bool:
        """Some output takes the merged files."""
        return any(spec.files_wanted for spec in self.specs)

    @property
    def layers_wanted(self) -> bool:
        """Some output takes layers."""
        return any(not spec.files_wanted for spec in self.specs)

    @property
    def compression(self) -> Compression:
        """How new layers are compressed: as the first output of layers asks for."""
        for spec in self.specs:
            if not spec.files_wanted and spec.compression:
                return Compression(spec.compression, spec.level)
        return Compression("gzip", None)


def plan_outputs(options: BuildOptions) -> Plan:
    """Return what the options ask for: `--output` values, `--push`, or the image store.

    Raises:
        InputError: a bad output, or --push without a name.
    """
    names = tuple(str(Reference.parse(tag)) for tag in options.tags)
    for tag in options.tags:
        if Reference.parse(tag).digest is not None:
            raise InputError(f"a tag cannot hold a digest: {tag!r}")
    specs = [parse_output(text) for text in options.outputs]
    if options.push:
        if not specs:
            specs = [parse_output("type=image,push=true")]
        else:
            specs = [replace(spec, push=True) if spec.type == "image" else spec for spec in specs]
    if options.switch(_MULTI) is False and len(set(options.platforms)) > 1:
        raise InputError(f"several platforms, and {_MULTI} says no", hint="leave one of them out")
    options.switch("BUILDKIT_INLINE_CACHE")  # whatever is wrong with it is said before anything runs
    if any(spec.push and not (names or spec.names) for spec in specs):
        raise InputError("a push needs a name", hint="give one with -t registry/repository:tag")
    return Plan(tuple(specs) or (OutputSpec("image"),), names, options.load)


class Outlets(Protocol):
    """Where outputs go that are not for this machine: a client far away."""

    def stream(self, number: int) -> BinaryIO | None:
        """Return where the bytes of the output of that number go, None for here. Closed when they are written."""

    def blobs(self, number: int) -> Keep | None:
        """Return what takes the blobs of the layout of that number, None for here."""

    def tree(self, number: int) -> Receive | None:
        """Return what takes the files of the output of that number, None for here."""


class Built:
    """What was built for one platform.

    Args:
        ref: the file system.
        config: the image config without rootfs; gets its creation times from the layers.
    """

    def __init__(self, platform: Platform, ref: LayerRef, config: Mapping[str, Any]) -> None:
        self.platform, self.ref, self.config = platform, ref, config
        self.packed: list[LayerRow] | None = None
        self.attestations: tuple[Attestation, ...] = ()


class Exporting:
    """Carries what was built to all outputs of a plan.

    Args:
        rows: returns a chain's rows with their blobs packed, bottom first; asked once for each platform, only if
            layers are wanted.
    """

    def __init__(
        self,
        place: Place,
        plan: Plan,
        built: Sequence[Built],
        rows: Callable[[LayerRef], list[LayerRow]],
        options: BuildOptions,
        stdout: BinaryIO | None,
        sink: Sink,
        outlets: Outlets | None = None,
    ) -> None:
        self._outlets = outlets
        self._place, self._plan, self._built = place, plan, tuple(built)
        self._rows, self._options = rows, options
        self._stdout, self._sink = stdout, sink
        self._vertex = "sha256:exporting"

    def run(self) -> BuildResult:
        """Write every output and return what was made. Shown as one vertex."""
        if not self._plan.specs:
            return self._result([])
        started = time.time()
        name = "exporting to " + ", ".join(dict.fromkeys(_shown(spec) for spec in self._plan.specs))
        self._sink(VertexEvent(self._vertex, name, started=started))
        try:
            outcomes = [self._export_to(number, spec) for number, spec in enumerate(self._plan.specs)]
            if self._plan.load:
                with docker_load(self._place.environment.search_path) as stdin:
                    outcomes.append(self._export(OutputSpec("docker", "-", media_types="docker"), stdin))
        except BaseException as error:
            text = str(error) or "cancelled"
            self._sink(VertexEvent(self._vertex, name, started=started, completed=time.time(), error=text))
            raise
        self._sink(VertexEvent(self._vertex, name, started=started, completed=time.time()))
        return self._result(outcomes)

    def _export_to(self, number: int, spec: OutputSpec) -> Outcome:
        keep = self._outlets.blobs(number) if self._outlets is not None else None
        if keep is not None:
            return self._export(spec, None, keep=keep)
        stream = self._outlets.stream(number) if self._outlets is not None else None
        if stream is None:
            tree = self._outlets.tree(number) if self._outlets is not None else None
            return self._export(spec, self._stdout, tree)
        with stream:
            return self._export(spec, stream)

    def _export(
        self, spec: OutputSpec, stdout: BinaryIO | None, receive: Receive | None = None, keep: Keep | None = None
    ) -> Outcome:
        platforms = tuple(
            PlatformResult(built.platform, partial(self._image, built), partial(self._files, built), built.attestations)
            for built in self._built
        )
        epoch = self._options.source_date_epoch
        rows = [] if spec.files_wanted else [row for built in self._built for row in self._layers(built)]
        result = Result(
            platforms=platforms,
            store=self._place.store,
            names=self._plan.names,
            base_layers=frozenset(Digest(row.blob) for row in rows if _of_base(row) and row.blob),
            fetch=self._fetch,
            mount_from=_mount_from(rows),
            multi=bool(self._options.switch(_MULTI)),
            mtime_ns=time.time_ns() if epoch is None else epoch * 10**9,
        )
        surroundings = Surroundings(
            cancel=self._place.cancel,
            directory=Path.cwd(),
            stdout=stdout,
            pusher=lambda _insecure: self._place.registry,
            progress=self._progress,
            keep=keep,
            receive=receive,
        )
        return export(result, spec, surroundings)

    def _layers(self, built: Built) -> list[LayerRow]:
        if built.packed is None:
            built.packed = self._rows(built.ref)
        return built.packed

    def _image(self, built: Built, media_types: str, annotations: Mapping[str, str]) -> Image:
        rows = self._layers(built)
        blobs = []
        for row in rows:
            descriptor = row.descriptor()
            assert descriptor is not None and row.diff_id is not None
            blobs.append(LayerBlob(descriptor, Digest(row.diff_id)))
        config = with_created(built.config, rows, self._options.source_date_epoch)
        merged = {**self._options.annotations, **annotations}
        return assemble(blobs, config, media_types=media_types, annotations=merged)

    def _files(self, built: Built) -> Iterator[Item]:
        cancel = self._place.cancel
        view = self._place.layers.view(built.ref, cancel)
        first_name: dict[str, str] = {}
        for entry in self._place.layers.union(built.ref, cancel).walk(""):
            cancel.check()
            if entry.kind != "f":
                yield Item(entry)
                continue
            group = view.link_group(entry)
            if group and group in first_name:
                yield Item(entry._replace(kind="h", target=first_name[group], size=0, digest=""))
                continue
            if group:
                first_name[group] = entry.path
            yield Item(entry, view.content(entry))

    def _fetch(self, descriptor: Descriptor) -> None:
        """Bring a base image's blob here because an output needs its bytes."""
        rows = (row for built in self._built for row in self._layers(built))
        row = next(row for row in rows if row.blob == descriptor.digest)
        self._place.fetch(row, self._place.cancel)

    def _progress(self, what: str, current: int, total: int) -> None:
        now = time.time()
        done = now if total and current >= total else None
        self._sink(StatusEvent(self._vertex, what, current, total, started=now, completed=done))

    def _result(self, outcomes: list[Outcome]) -> BuildResult:
        image = next((outcome for outcome in outcomes if outcome.descriptor is not None), None)
        names = tuple(dict.fromkeys(name for outcome in outcomes for name in outcome.names))
        if image is None or image.descriptor is None:
            return BuildResult(config=dict(self._built[0].config), names=names)
        config = self._image(self._built[0], "oci", {}).config.fields
        metadata: dict[str, Any] = {
            "containerimage.digest": str(image.descriptor.digest),
            "containerimage.descriptor": image.descriptor.to_json(),
        }
        if image.image_id is not None:
            metadata["containerimage.config.digest"] = str(image.image_id)
        if names:
            metadata["image.name"] = ",".join(names)
        image_id = str(image.image_id or "")
        return BuildResult(str(image.descriptor.digest), image_id, dict(config), names, metadata)


def _shown(spec: OutputSpec) -> str:
    if spec.type == "image":
        return "registry" if spec.push and not spec.store else "image"
    return f"{spec.type} {spec.dest}" if spec.dest else spec.type


def _mount_from(rows: list[LayerRow]) -> dict[Digest, list[Reference]]:
    """Return for each remote layer's blob the repository that has it: of its image, or of a cache."""
    found: dict[Digest, list[Reference]] = {}
    for row in rows:
        kind, where = parse_origin(row.origin) if row.origin and row.blob else ("", "")
        if kind == "cache":
            spec = parse_spec(where, export=False)
            kind, where = spec.type, spec.attributes.get("ref", "")
        if kind == "registry" and row.blob:
            found.setdefault(Digest(row.blob), []).append(Reference.parse(where))
    return found


def _of_base(row: LayerRow) -> bool:
    """Tell whether a layer came with an image, not from a cache of steps."""
    return bool(row.origin) and parse_origin(row.origin)[0] != "cache"


def with_created(config: Mapping[str, Any], rows: list[LayerRow], epoch: int | None) -> dict[str, Any]:
    """Return the config with creation times: those of the layers, so that a cached build gives the same image.

    Rows of the base image's history keep their times; ours without a layer take the time of the one before.
    """
    fields = dict(config)
    history = [dict(row) for row in fields.get("history") or []]
    layers = iter(rows)
    last = ""
    for row in history:
        made = None if row.get("empty_layer") else next(layers, None)
        if "created" not in row:
            if made is not None:
                row["created"] = timestamp(epoch if epoch is not None else made.created)
            elif last:
                row["created"] = last
        last = row.get("created") or last
    newest = max((row.created for row in rows), default=0.0)
    fields["history"] = history
    fields["created"] = timestamp(epoch) if epoch is not None else last or timestamp(newest)
    return fields


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, as image configs hold it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
