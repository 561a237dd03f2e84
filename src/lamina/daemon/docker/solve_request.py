"""The query of `POST /build` becomes a `Solve` request of BuildKit's Control service. Pure.

What docker's own daemon does with the same fields is followed: names of exporters, options of the frontend, the
entitlement that `--network host` stands for. Fields that limit steps in ways that BuildKit does not know (memory, CPU
shares) were ignored there and are named here as warnings.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.api.pb import control_pb2
from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.routes import Query
from lamina.oci.platform import Platform
from lamina.oci.reference import Reference

BUILDKIT, CLASSIC = "2", "1"
UPLOAD = "upload-request"
"""As `remote`: the context comes in the body of a second request, whose `buildid` begins with this."""
SESSION = "client-session"
_MAX_JSON_TEXTS = 10_000
_IGNORED = ("cpusetcpus", "cpusetmems", "cpushares", "cpuquota", "cpuperiod", "memory", "memswap")
_GATEWAY = "host-gateway"
"""As an address: where the machine itself is to be reached; the executor knows."""
_NETWORKS = ("", "default", "bridge", "host", "none")


@dataclass(frozen=True, slots=True)
class BuildQuery:
    """What a build's query says beside the request itself.

    Attributes:
        version: which builder the client speaks to.
        build_id: by which the client may cancel it, and bring a context.
        remote: where the context is: `SESSION`, `UPLOAD`, a URL, "" for the body of this request.
        quiet: only the image's ID is wanted.
        makes_image: the image is kept here, so that the client is to be told its ID.
        ignored: options that mean nothing here.
    """

    request: control_pb2.SolveRequest
    version: str = BUILDKIT
    build_id: str = ""
    remote: str = ""
    quiet: bool = False
    makes_image: bool = True
    tags: tuple[str, ...] = ()
    ignored: tuple[str, ...] = field(default=())


def build_query(query: Query, ref: str) -> BuildQuery:
    """Return the request that a query stands for.

    Args:
        ref: how the build is to be called.

    Raises:
        ApiError: a field that makes no sense; InputError: a tag or platform that is none.
    """
    version = query.text("version") or CLASSIC
    if version not in (CLASSIC, BUILDKIT):
        raise ApiError(400, f"invalid version {version[:20]!r}")
    if query.flag("squash"):
        raise ApiError(400, "squash is only supported with experimental mode")
    if any(query.texts("securityopt")):
        raise ApiError(400, "The daemon on this platform does not support setting security options on build")
    build_args = _texts(query, "buildargs")
    request = control_pb2.SolveRequest(
        Ref=ref, Frontend="dockerfile.v0", FrontendAttrs=_attrs(query, build_args), Session=query.text("session")
    )
    tags = tuple(dict.fromkeys(str(Reference.parse(tag)) for tag in query.texts("t") if tag))
    exporter = _exporter(query, tags)
    if exporter is not None:
        request.Exporters.append(exporter)
    if query.text("networkmode") == "host":
        request.Entitlements.append("network.host")
    if (build_args.get("BUILDKIT_INLINE_CACHE") or "").lower() in ("1", "t", "true"):
        request.Cache.Exports.add(Type="inline")
    return BuildQuery(
        request,
        version=version,
        build_id=query.text("buildid"),
        remote=query.text("remote"),
        quiet=query.flag("q"),
        makes_image=exporter is not None and exporter.Type == "moby",
        tags=tags,
        ignored=tuple(name for name in _IGNORED if query.text(name) not in ("", "0")),
    )


def _attrs(query: Query, build_args: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options of the frontend."""
    attrs = {f"build-arg:{name}": value for name, value in build_args.items() if value is not None}
    attrs |= {f"label:{name}": value or "" for name, value in _texts(query, "labels").items()}
    attrs["image-resolve-mode"] = "pull" if query.flag("pull") else "default"
    plain = {
        "target": query.text("target"),
        "filename": query.text("dockerfile") if query.text("dockerfile") != "." else "",
        "platform": str(Platform.parse(query.text("platform"))) if query.text("platform") else "",
        "force-network-mode": _network(query.text("networkmode")),
        "add-hosts": ",".join(map(_host, query.texts("extrahosts"))),
        "cgroup-parent": query.text("cgroupparent"),
        "shm-size": str(query.number("shmsize") or ""),
        "ulimit": ",".join(map(_ulimit, _list(query, "ulimits"))),
        "cache-from": ",".join(map(_cache, _list(query, "cachefrom"))),
    }
    attrs |= {name: value for name, value in plain.items() if value}
    if query.flag("nocache"):
        attrs["no-cache"] = ""
    remote = query.text("remote")
    if remote not in ("", SESSION, UPLOAD):
        attrs["context"] = remote
    return attrs


def _exporter(query: Query, tags: tuple[str, ...]) -> control_pb2.Exporter | None:
    """Return where the result goes: the image store, unless the client says something else; None for nowhere."""
    outputs = _list(query, "outputs")
    if len(outputs) > 1:
        raise ApiError(400, "multiple outputs not supported")
    if not outputs:
        return control_pb2.Exporter(Type="moby", Attrs={"name": ",".join(tags)} if tags else {})
    output = outputs[0]
    kind = output.get("Type") if isinstance(output, dict) else None
    attrs = (output.get("Attrs") or {}) if isinstance(output, dict) else {}
    if not isinstance(kind, str) or not isinstance(attrs, dict) or not _are_texts(attrs):
        raise ApiError(400, "outputs: expected a list of types with attributes")
    if kind == "cacheonly":
        return None
    if kind in ("moby", "image") and tags:
        attrs = {"name": ",".join(tags), **attrs}
    return control_pb2.Exporter(Type=kind, Attrs=attrs)


def _network(mode: str) -> str:
    if mode not in _NETWORKS:
        raise ApiError(400, f"network mode {mode[:80]!r} not supported by buildkit")
    return mode if mode in ("host", "none") else ""


def _host(text: str) -> str:
    """Return `name:address` as the frontend takes it."""
    name, separator, address = text.partition(":") if "=" not in text else text.partition("=")
    bare = address.removeprefix("[").removesuffix("]")
    try:
        if bare != _GATEWAY:
            ipaddress.ip_address(bare)
    except ValueError:
        separator = ""
    if not separator or not name or "," in name:
        raise ApiError(400, f"invalid host {text[:200]!r}", hint="expected name:address")
    return f"{name}={bare}"


def _ulimit(value: Any) -> str:
    fields = value if isinstance(value, dict) else {}
    name, soft, hard = fields.get("Name"), fields.get("Soft", 0), fields.get("Hard", 0)
    if not isinstance(name, str) or not name.isalnum() or not isinstance(soft, int) or not isinstance(hard, int):
        raise ApiError(400, "error reading ulimit settings")
    return f"{name}={soft}:{hard}"


def _cache(value: Any) -> str:
    if not isinstance(value, str) or "," in value:
        raise ApiError(400, f"cachefrom: not a reference: {str(value)[:200]!r}")
    return value


def _texts(query: Query, name: str) -> dict[str, str | None]:
    """Return a field that is an object of texts; null is a name without a value."""
    found = query.json(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not _are_texts({key: value for key, value in found.items() if value is not None}):
        raise ApiError(400, f"{name}: expected an object of texts")
    return found


def _list(query: Query, name: str) -> list[Any]:
    found = query.json(name)
    if found is None:
        return []
    if not isinstance(found, list) or len(found) > _MAX_JSON_TEXTS:
        raise ApiError(400, f"{name}: expected a list")
    return found


def _are_texts(values: Mapping[str, Any]) -> bool:
    return all(isinstance(value, str) for value in values.values())
