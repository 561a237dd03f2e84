"""What clients ask of the daemon itself: `_ping`, version, info, disk usage; and containers, of which it has none."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.api.pb import control_pb2
from lamina.cancel import Cancel
from lamina.daemon.disk import disk_usage, prune
from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.images import known_images
from lamina.daemon.docker.routes import API_VERSION, MIN_API_VERSION, Filters, Request, Routes, version_text
from lamina.daemon.docker.shapes import page, summary
from lamina.daemon.worker import worker_record
from lamina.engine.images import open_store
from lamina.engine.options import Environment
from lamina.engine.upkeep.amounts import parse_seconds
from lamina.errors import InputError
from lamina.oci.platform import host_platform

_NS = 10**9
_NO_CONTAINERS = "lamina builds images; it runs no containers: use `lamina run`"
_PRUNE_FILTERS = frozenset(
    {"until", "unused-for", "label", "label!", "id", "parent", "type", "description", "inuse", "shared", "private"}
)


class System:
    """Handlers that tell of this daemon and what it keeps."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def register(self, routes: Routes) -> None:
        """Add the handlers."""
        routes.add("GET", "/_ping", self.ping)
        routes.add("HEAD", "/_ping", self.ping)
        routes.add("GET", "/version", self.version)
        routes.add("GET", "/info", self.info)
        routes.add("GET", "/system/df", self.usage)
        routes.add("POST", "/build/prune", self.prune)
        routes.add("GET", "/containers/json", lambda request: request.exchange.reply(200, []))
        routes.add("GET", "/containers/{name:path}/json", self._no_such("container"))
        for kind in ("Containers", "Networks", "Volumes"):  # `docker system prune` asks for all of them
            routes.add("POST", f"/{kind.lower()}/prune", _nothing_pruned(kind))
        for method in ("GET", "POST", "PUT", "DELETE", "HEAD"):
            for path in ("/containers/{rest:path}", "/exec/{rest:path}", "/commit"):
                routes.add(method, path, _refuse)
            for path in ("/images/search", "/events", "/networks/create", "/volumes/create", "/swarm{rest:path}"):
                routes.add(method, path, _not_here)
        for kind in ("networks", "volumes", "plugins", "services", "secrets", "configs", "nodes", "tasks", "swarm"):
            routes.add("GET", f"/{kind}", _not_here)
        for kind in ("network", "volume", "service", "task", "node", "secret", "plugin", "config"):
            # `docker inspect NAME` asks for all of them, one after the other
            routes.add("GET", f"/{kind}s/{{name:path}}", self._no_such(kind))
        routes.add("GET", "/plugins/{name:path}/json", self._no_such("plugin"))

    def ping(self, request: Request) -> None:
        """Say that somebody is here, and which builder."""
        request.exchange.reply_headers += [
            ("Builder-Version", "2"),
            ("Cache-Control", "no-cache, no-store, must-revalidate"),
            ("Pragma", "no-cache"),
            ("Swarm", "inactive"),
        ]
        # HEAD is answered without the length of what GET has, as docker's daemon does it
        data = b"" if request.exchange.method == "HEAD" else b"OK"
        request.exchange.reply_bytes(200, data, "text/plain; charset=utf-8")

    def version(self, request: Request) -> None:
        """Tell the versions."""
        machine = host_platform()
        api, oldest = version_text(API_VERSION), version_text(MIN_API_VERSION)
        kernel = platform.release()
        details = {
            "ApiVersion": api,
            "Arch": machine.architecture,
            "Experimental": "false",
            "KernelVersion": kernel,
            "MinAPIVersion": oldest,
            "Os": machine.os,
        }
        request.exchange.reply(
            200,
            {
                "Platform": {"Name": "Lamina"},
                "Components": [{"Name": "Engine", "Version": __version__, "Details": details}],
                "Version": __version__,
                "ApiVersion": api,
                "MinAPIVersion": oldest,
                "GitCommit": "",
                "GoVersion": "",
                "Os": machine.os,
                "Arch": machine.architecture,
                "KernelVersion": kernel,
            },
        )

    def info(self, request: Request) -> None:
        """Tell what this daemon and its machine are."""
        worker = worker_record(self._environment, control_pb2.InfoResponse().buildkitVersion, {})
        proxies = self._environment.proxies
        found: dict[str, Any] = {
            "ID": worker.ID,
            **dict.fromkeys(("Containers", "ContainersRunning", "ContainersPaused", "ContainersStopped"), 0),
            "Images": len(known_images(open_store(self._environment.root))),
            "Driver": "overlayfs",
            # clients know by this that images for several platforms, attestations and OCI layouts are fine here
            "DriverStatus": [["driver-type", "io.containerd.snapshotter.v1"]],
            "Plugins": {"Volume": [], "Network": ["host", "null"], "Authorization": None, "Log": []},
            **dict.fromkeys(("MemoryLimit", "SwapLimit", "CpuCfsPeriod", "CpuCfsQuota", "CPUShares", "CPUSet"), True),
            **dict.fromkeys(("PidsLimit", "IPv4Forwarding"), True),
            "Debug": False,
            "SystemTime": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "LoggingDriver": "none",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "KernelVersion": platform.release(),
            "OperatingSystem": _system_name(),
            "OSType": "linux",
            "Architecture": platform.machine(),
            "IndexServerAddress": "https://index.docker.io/v1/",
            "RegistryConfig": self._registries(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "DockerRootDir": str(self._environment.root),
            "HttpProxy": "set" if proxies.get("http_proxy") else "",  # its URL may hold a password
            "HttpsProxy": "set" if proxies.get("https_proxy") else "",
            "NoProxy": proxies.get("no_proxy", ""),
            "Name": platform.node(),
            "Labels": [],
            "ExperimentalBuild": False,
            "ServerVersion": __version__,
            "Runtimes": {},
            "DefaultRuntime": "",
            "Swarm": {"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": False},
            "LiveRestoreEnabled": False,
            "Isolation": "",
            "InitBinary": "",
            **{f"{name}Commit": {"ID": "", "Expected": ""} for name in ("Containerd", "Runc", "Init")},
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "Warnings": None,
        }
        request.exchange.reply(200, found)

    def _registries(self) -> dict[str, Any]:
        insecure = [name for name in self._environment.insecure_registries if "/" not in name]
        configs: dict[str, Any] = {
            name: {"Name": name, "Mirrors": [], "Secure": False, "Official": False} for name in insecure
        }
        mirrors = list(self._environment.registry_mirrors.get("docker.io", ()))
        configs["docker.io"] = {"Name": "docker.io", "Mirrors": mirrors, "Secure": True, "Official": True}
        return {"InsecureRegistryCIDRs": [], "IndexConfigs": configs, "Mirrors": mirrors}

    def usage(self, request: Request) -> None:
        """Tell what images and the cache take."""
        kinds = set(request.query.texts("type"))
        found: dict[str, Any] = {"Containers": [], "Volumes": []}
        if not kinds or "image" in kinds:
            images = page(known_images(open_store(self._environment.root)))
            layers = {
                layer.descriptor.digest: layer.descriptor.size
                for known in images
                for image in known.images
                for layer in image.layers
            }
            found["LayersSize"] = sum(layers.values())
            found["Images"] = [summary(known, request.version, used=True) for known in images]
        if not kinds or "build-cache" in kinds:
            records = disk_usage(self._environment, control_pb2.DiskUsageRequest()).record
            found["BuildCache"] = [_cache_row(record) for record in records]
            found["BuilderSize"] = sum(record.Size for record in records)
        request.exchange.reply(200, found)

    def prune(self, request: Request) -> None:
        """Remove what the cache no longer needs."""
        message = prune_request(
            request.query.filters(_PRUNE_FILTERS), request.query.flag("all"), request.query.number("keep-storage")
        )
        for field, name in (
            ("reserved-space", "reservedSpace"),
            ("max-used-space", "maxUsedSpace"),
            ("min-free-space", "minFreeSpace"),
        ):
            if request.query.number(field):
                setattr(message, name, request.query.number(field))
        with request.exchange.gone() as cancel:
            gone = list(_pruned(self._environment, message, cancel))
        request.exchange.reply(
            200, {"CachesDeleted": [record.ID for record in gone], "SpaceReclaimed": sum(one.Size for one in gone)}
        )

    @staticmethod
    def _no_such(kind: str) -> Any:
        def handler(request: Request) -> None:
            raise ApiError(404, f"No such {kind}: {request.names['name'][:300]}")

        return handler


def _pruned(
    environment: Environment, message: control_pb2.PruneRequest, cancel: Cancel
) -> list[control_pb2.UsageRecord]:
    return list(prune(environment, message, cancel))


def prune_request(filters: Filters, everything: bool, keep_bytes: int) -> control_pb2.PruneRequest:
    """Return what a client's filters mean to BuildKit's `Prune`. Pure.

    Raises:
        ApiError: a filter with several values, or a time that is none.
    """
    message = control_pb2.PruneRequest(all=everything, reservedSpace=max(0, keep_bytes))
    if "until" in filters and "unused-for" in filters:
        raise ApiError(400, "conflicting filters: until and unused-for")
    for name, values in filters.items():
        if len(values) > 1:
            raise ApiError(400, f"filter {name}: expected one value")
        if name in ("until", "unused-for"):
            try:
                message.keepDuration = int(parse_seconds(values[0], name) * _NS) if values else 0
            except InputError as error:
                raise ApiError(400, str(error)) from error
        elif name in ("label", "label!"):
            raise ApiError(400, "build cache has no labels")
        elif not values:
            message.filter.append(name)
        else:
            field = "parents" if name == "parent" else name
            message.filter.append(f"{field}{'~=' if name in ('id', 'parent') else '=='}{values[0]}")
    return message


def _cache_row(record: control_pb2.UsageRecord) -> dict[str, Any]:
    return {
        "ID": record.ID,
        "Parent": record.Parents[0] if record.Parents else "",
        "Parents": list(record.Parents),
        "Type": record.RecordType,
        "Description": record.Description,
        "InUse": record.InUse,
        "Shared": record.Shared,
        "Size": record.Size,
        "CreatedAt": record.CreatedAt.ToJsonString(),
        "LastUsedAt": record.LastUsedAt.ToJsonString() if record.HasField("LastUsedAt") else None,
        "UsageCount": record.UsageCount,
    }


def _system_name() -> str:
    try:
        lines = Path("/etc/os-release").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.system()
    fields = dict(line.split("=", 1) for line in lines if "=" in line)
    return fields.get("PRETTY_NAME", platform.system()).strip("\"'")


def _refuse(_request: Request) -> None:
    raise ApiError(501, _NO_CONTAINERS)


def _nothing_pruned(kind: str) -> Any:
    def handler(request: Request) -> None:
        request.exchange.reply(200, {f"{kind}Deleted": None, "SpaceReclaimed": 0})

    return handler


def _not_here(request: Request) -> None:
    raise ApiError(501, f"lamina builds images: it has no {request.exchange.target.partition('?')[0][:80]}")
