"""One build's frontend side: solves, files of results, images' configs, warnings; and in the end the result.

Whoever the frontend is, it holds references by ids that only this bridge knows. Thread-safe.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lamina.api.errors import NotFoundError
from lamina.api.pb import gateway_pb2, worker_pb2
from lamina.attest.predicate import Invocation
from lamina.bridge.attestations import given_for, invocation_of
from lamina.bridge.messages import platform_of
from lamina.bridge.values import CONFIG, PLATFORMS, Ref, Result
from lamina.cancel import Cancel
from lamina.engine.job import Job, Wanted
from lamina.errors import CancelledError, Error, InputError
from lamina.layer.entry import Entry
from lamina.layer.view import ChainView
from lamina.llb.pb import ops_pb2 as pb
from lamina.oci.platform import Platform, host_platform
from lamina.oci.reference import Reference
from lamina.policy.values import Policy, Source

if TYPE_CHECKING:
    from lamina.bridge.containers import Containers
    from lamina.frontend.interface import Frontend

Workers = Callable[[], Sequence[worker_pb2.WorkerRecord]]
MAX_REFS = 10_000
MAX_READ = 64 << 20
"""Most bytes of a file that a frontend reads at once."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Which frontends may be used.

    Attributes:
        frontends: of those that are built in.
        repositories: whose images may be frontends in containers; none for all.
        own: frontends of the daemon's owner, that run in this process.
    """

    frontends: frozenset[str] = frozenset({"dockerfile.v0", "gateway.v0"})
    repositories: tuple[str, ...] = ()
    own: Mapping[str, Frontend] = field(default_factory=dict)

    def check(self, name: str, source: str) -> None:
        """Refuse a frontend that may not be used.

        Raises:
            InputError: by the daemon's configuration it may not, or nobody knows it.
        """
        if name in self.own:
            return
        known = ("dockerfile.v0", "gateway.v0")
        if name not in known:
            raise InputError(f"unknown frontend {name!r}", hint=f"known: {', '.join((*known, *self.own))}")
        if name not in self.frontends:
            raise InputError(f"the frontend {name} is switched off in this daemon")
        if name == "gateway.v0" and source and self.repositories:
            wanted = Reference.parse(source)
            listed = [Reference.parse(one) for one in self.repositories]
            if not any((one.registry, one.repository) == (wanted.registry, wanted.repository) for one in listed):
                raise InputError(f"{source} is not among the repositories whose frontends this daemon runs")


class Bridge:
    """What a frontend may ask of one build.

    Args:
        opts: options that the client gave to the frontend, and `inputs`: definitions it gave by name.
        workers: what frontends in containers are told of workers.
        allowed: which other frontends may be used.
    """

    def __init__(
        self,
        job: Job,
        opts: Mapping[str, str] | None = None,
        inputs: Mapping[str, pb.Definition] | None = None,
        workers: Workers = lambda: (),
        allowed: Allowed | None = None,
    ) -> None:
        self._workers, self._allowed = workers, allowed or Allowed()
        self.job, self.opts, self.inputs = job, dict(opts or {}), dict(inputs or {})
        self._refs: dict[str, Ref] = {}
        self._guard = threading.Lock()
        self._returned: Result | BaseException | None = None
        self._is_returned = threading.Event()

    @cached_property
    def containers(self) -> Containers:
        """The containers that the frontend asked for."""
        from lamina.bridge.containers import Containers

        return Containers(self)

    def solve(
        self,
        *,
        definition: pb.Definition | None = None,
        frontend: str = "",
        opts: Mapping[str, str] | None = None,
        inputs: Mapping[str, pb.Definition] | None = None,
        evaluate: bool = False,
        policies: Sequence[Policy] = (),
    ) -> Result:
        """Return what a definition or another frontend comes to; solved only with `evaluate`, or when looked at.

        Args:
            policies: for the definition, beside those of the build.

        Raises:
            Error: bad input, or the first failure.
        """
        if frontend:
            if definition is not None and len(getattr(definition, "def")):
                raise InputError("a solve has a definition or a frontend, not both")
            result = self.run_frontend(frontend, opts or {}, inputs or {})
        elif definition is not None and len(getattr(definition, "def")):
            result = Result(ref=Ref(definition, self.job, policies))
        else:
            result = Result()
        if evaluate:
            self.evaluate(result.each())
        return result

    def evaluate(self, refs: Sequence[Ref]) -> None:
        """Solve references."""
        for ref in refs:
            _ = ref.layers

    def run_frontend(self, name: str, opts: Mapping[str, str], inputs: Mapping[str, pb.Definition]) -> Result:
        """Return the result of another frontend."""
        self._allowed.check(name, opts.get("source", ""))
        result = self._run_frontend(name, opts, inputs)
        for ref in result.each():
            if ref.asked is None:  # the innermost frontend made it
                ref.asked = (name, dict(opts))
        return result

    def _run_frontend(self, name: str, opts: Mapping[str, str], inputs: Mapping[str, pb.Definition]) -> Result:
        if name in self._allowed.own:
            from lamina.bridge.in_process import run_in_process

            return run_in_process(self._allowed.own[name], self, opts)
        if name == "dockerfile.v0":
            from lamina.bridge.dockerfile import DockerfileFrontend

            return DockerfileFrontend(self, opts, inputs).solve()
        from lamina.bridge.gateway import run_gateway

        return run_gateway(Bridge(self.job, opts, inputs, self._workers, self._allowed), opts, self._workers)

    def keep(self, ref: Ref | None) -> str:
        """Return an id for a reference, "" for none."""
        if ref is None:
            return ""
        with self._guard:
            if len(self._refs) >= MAX_REFS:
                raise InputError(f"a frontend may hold {MAX_REFS} references")
            name = secrets.token_hex(12)
            self._refs[name] = ref
        return name

    def ref(self, name: str) -> Ref | None:
        """Return the reference behind an id, None for "".

        Raises:
            NotFoundError: there is none.
        """
        if not name:
            return None
        with self._guard:
            found = self._refs.get(name)
        if found is None:
            raise NotFoundError(f"no such reference: {name[:80]!r}")
        return found

    def read_file(self, ref: Ref | None, path: str, offset: int = 0, length: int = 0) -> bytes:
        """Return bytes of a regular file, links followed inside the file system; `length` 0 is all of it.

        Raises:
            NotFoundError: it is not there; InputError: it is not a file, or too large to be read at once.
        """
        from lamina.exporter.files_out import read_content

        view, entry = self._look(ref, path)
        if entry.kind != "f":
            raise InputError(f"{path}: not a regular file")
        if offset < 0 or length < 0:
            raise InputError(f"{path}: cannot be read at {offset} for {length} bytes")
        wanted = min(length or entry.size, max(0, entry.size - offset))
        if wanted > MAX_READ:
            raise InputError(f"{path}: {wanted} bytes are more than the {MAX_READ >> 20} MiB read at once")
        found = bytearray()
        for chunk in read_content(view.content(entry), entry, self.job.cancel):
            if offset >= len(chunk):
                offset -= len(chunk)
                continue
            found += chunk[offset : offset + wanted - len(found)]
            offset = 0
            if len(found) >= wanted:
                break
        return bytes(found)

    def read_dir(self, ref: Ref | None, path: str, pattern: str = "") -> list[Entry]:
        """Return what a directory holds, sorted by name; `pattern` is a glob that the names match."""
        from fnmatch import fnmatchcase

        view, entry = self._look(ref, path)
        if entry.kind != "d":
            raise InputError(f"{path}: not a directory")
        found = []
        for name in view.children(entry.path):
            if pattern and not fnmatchcase(name, pattern):
                continue
            child = view.lookup(f"{entry.path}/{name}".lstrip("/"))
            if child is not None:
                found.append(child)
        return found

    def stat_file(self, ref: Ref | None, path: str) -> Entry:
        """Return what lies at a path; a link at its end is told as a link."""
        return self._look(ref, path, follow_last=False)[1]

    def _look(self, ref: Ref | None, path: str, *, follow_last: bool = True) -> tuple[ChainView, Entry]:
        if ref is None:
            raise NotFoundError(f"{path}: the file system is empty")
        view = self.job.place.layers.view(ref.layers, self.job.cancel)
        entry = view.lookup(view.resolve(path, follow_last))
        if entry is None:
            raise NotFoundError(f"{path}: no such file or directory")
        return view, entry

    def image_config(
        self, name: str, platform: Platform | None, policies: Sequence[Policy] = ()
    ) -> tuple[str, str, bytes]:
        """Return an image's reference, the digest that its name stands for, and the bytes of its config."""
        base = self.job.resolve(name, platform or host_platform(), policies)
        return base.reference, base.reference.rpartition("@")[2], json.dumps(base.config).encode()

    def source_meta(
        self, request: gateway_pb2.ResolveSourceMetaRequest, policies: Sequence[Policy] = ()
    ) -> gateway_pb2.ResolveSourceMetaResponse:
        """Return what is to be known of a source beforehand.

        Raises:
            SourceDeniedError: it may not be used; Error: it cannot be had.
        """
        from lamina.bridge.source_meta import source_meta

        if not request.HasField("Source"):
            raise InputError("a source is needed")
        asked = Source(request.Source.identifier, dict(request.Source.attrs))
        source = self.job.gate.judge(asked, platform_of(request.Platform), policies)
        return source_meta(self.job, source, request)

    def returned(self, result: Result | BaseException) -> None:
        """Take what the frontend gives back, once.

        Raises:
            InputError: it came before.
        """
        with self._guard:
            if self._returned is not None:
                raise InputError("the frontend has returned already")
            self._returned = result
        self._is_returned.set()

    def result_now(self, missing: Callable[[], Error]) -> Result:
        """Return what the frontend gave back; it has ended.

        Raises:
            Error: `missing()`, when it gave nothing; or what it says went wrong.
        """
        if self._returned is None:
            raise missing()
        if isinstance(self._returned, BaseException):
            raise self._returned
        return self._returned

    def wait(self, cancel: Cancel) -> Result:
        """Return what the frontend gives back.

        Raises:
            CancelledError: the build ended before; or whatever the frontend says went wrong.
        """
        with cancel.closing(self._is_returned.set):
            self._is_returned.wait()
        if self._returned is None:
            cancel.check()
        return self.result_now(CancelledError)


def wanted(result: Result, root: Invocation | None = None) -> list[Wanted]:
    """Return what is to be delivered of a frontend's result.

    Args:
        root: what the client asked.

    Raises:
        InputError: its metadata do not say what exporters must know.
    """
    if not result.refs:
        config = _config(result.metadata.get(CONFIG, b""))
        return [_wanted(result, "", result.ref, _platform_of(config), config, root)]
    try:
        listed = json.loads(result.metadata.get(PLATFORMS, b"") or b"{}").get("Platforms") or []
        keys = [(str(one["ID"]), one.get("Platform") or {}) for one in listed]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the frontend's {PLATFORMS} is not what it should be") from error
    keys = keys or [(key, {}) for key in sorted(result.refs)]
    found = []
    for key, fields in keys:
        if key not in result.refs:
            raise InputError(f"the frontend's result has nothing for the platform {key!r}")
        ref = result.refs[key]
        config = _config(result.metadata.get(f"{CONFIG}/{key}", b"") or result.metadata.get(CONFIG, b""))
        if not fields:
            fields = config
        found.append(_wanted(result, key, ref, _platform_of(fields), {**config, **_named(fields)}, root))
    return found


def _wanted(
    result: Result, key: str, ref: Ref | None, platform: Platform, config: dict[str, Any], root: Invocation | None
) -> Wanted:
    return Wanted(
        platform,
        ref.graph if ref is not None else None,
        config,
        extras=ref.scanned if ref is not None else {},
        given=given_for(result, key),
        invocation=invocation_of(ref) or root,
        root=root,
    )


def _config(data: bytes) -> dict[str, Any]:
    """Return an image config, with a platform; layers are ours to say."""
    try:
        config = json.loads(data) if data else {}
    except ValueError as error:
        raise InputError("the frontend's image config is not JSON") from error
    if not isinstance(config, dict):
        raise InputError("the frontend's image config is not a JSON object")
    platform = host_platform()
    config.setdefault("architecture", platform.architecture)
    config.setdefault("os", platform.os)
    config.setdefault("config", {})
    config.pop("rootfs", None)
    return config


def _platform_of(fields: Mapping[str, Any]) -> Platform:
    return Platform.normal(str(fields["os"]), str(fields["architecture"]), str(fields.get("variant") or ""))


def _named(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fields[name] for name in ("os", "architecture", "variant") if fields.get(name)}
