"""buildkitd.toml: what it says that is carried out here, and what has no meaning here. Pure: text in, values out.

Three kinds of keys: those that are carried out; those that are about something this daemon does not have (named in
`DaemonConfig.without_meaning`, so that whoever starts it can say so); and those whose meaning must not be passed over
in silence, which are errors, as is every unknown key. Reference: BuildKit, docs/buildkitd.toml.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.config.buildkitd_keys import CONTAINERD, IDLE, OCI, ROOT
from lamina.config.document import Table, parse_document
from lamina.config.registries import GC_KEYS, RegistryConfig, parse_registries

_IDLE_WORKER = (
    *("userRemapUnsupported", "snapshotter", "rootless", "noProcessSandbox", "cniPoolSize"),
    *("proxySnapshotterPath", "stargzSnapshotter", "platforms", "bridgeName", "bridgeSubnet"),
)
_WRONG_WORKER = {
    "apparmor-profile": "AppArmor profiles",
    "selinux": "SELinux labels",
    "defaultCgroupParent": "control groups for all steps",
    "enableUserNSRemap": "other user namespaces for steps",
    "cniConfigPath": "CNI networks",
    "cniBinaryPath": "CNI networks",
    "cniNetworkNamespace": "CNI networks",
}
_ENTITLEMENTS = ("network.host", "security.insecure", "device")
_LEVELS = ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace")


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Paths of the server's certificate and key, and of the authorities whose clients may come."""

    cert: str = ""
    key: str = ""
    ca: str = ""


@dataclass(frozen=True, slots=True)
class DaemonConfig:
    """What a file says.

    Attributes:
        entitlements: what clients may ask for beyond a sandbox.
        gc: the worker's table with its keys about disk space, for `parse_policies`.
        max_parallelism: steps at once of all builds together, 0 for no limit.
        log_level: "" when nothing is said; `log_format` is `text` or `json`.
        gateway: whether frontends in containers may run, and of which repositories (empty: all).
        cdi_dirs: None when devices are switched off.
        trace_socket: where programs beside the daemon hand it spans, "" for nowhere.
        history_age: how long records of builds are kept: seconds, or a text such as `48h`.
        history_entries: how many are; None when nothing is said.
        registry_connections: at once with one registry in one build, 0 when nothing is said.
        source_policy: file that says which sources builds may use, "" for none. A key of ours.
        without_meaning: keys that have none here.
    """

    root: str = ""
    debug: bool = False
    entitlements: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None
    tls: TlsFiles | None = None
    log_level: str = ""
    log_format: str = "text"
    binary: str = ""
    gc: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    max_parallelism: int = 0
    registries: Mapping[str, RegistryConfig] = field(default_factory=dict)
    dockerfile_frontend: bool = True
    gateway: bool = True
    gateway_repositories: tuple[str, ...] = ()
    cdi_dirs: tuple[str, ...] | None = ()
    trace_socket: str = ""
    history_age: str | int = 0
    history_entries: int | None = None
    registry_connections: int = 0
    source_policy: str = ""
    without_meaning: tuple[str, ...] = ()


def parse_buildkitd(text: str, name: str) -> DaemonConfig:
    """Return what a buildkitd.toml says.

    Args:
        name: how errors call the file.

    Raises:
        InputError: not TOML, an unknown key, a value of another type, or something that is not carried out.
    """
    root = parse_document(text, name).root
    root.check_known(*ROOT)
    root.check_shape({"trace": bool, "provenanceEnvDir": str, **IDLE, "*": None})
    idle: list[str] = [key for key in ("provenanceEnvDir", "cache", "ghacache") if key in root.values]
    _refuse_root(root)
    fields: dict[str, Any] = {
        "root": root.text("root"),
        "debug": root.boolean("debug") or root.boolean("trace"),
        "entitlements": _entitlements(root),
        "source_policy": root.text("sourcePolicy"),
        "registries": parse_registries(root),
    }
    readers = (
        *(_read_log, _read_grpc, _read_otel, _read_cdi, _read_worker, _read_frontends, _read_history),
        _read_system,
    )
    for reader in readers:
        fields |= reader(root, idle)
    return DaemonConfig(**fields, without_meaning=tuple(idle))


def _refuse_root(root: Table) -> None:
    """Refuse what would change what builds may do, and is not carried out."""
    if root.boolean("proxyNetwork"):
        raise root.fault("the proxy network is not carried out", "proxyNetwork", hint="leave it out")
    for _, dns in _named(root, "dns"):
        if dns.values:
            raise root.fault("name servers of steps cannot be set", "dns", hint="steps have those of this machine")


def _entitlements(root: Table) -> tuple[str, ...]:
    found = root.texts("insecure-entitlements")
    for name in found:
        if name not in _ENTITLEMENTS:
            hint = f"known: {', '.join(_ENTITLEMENTS)}"
            raise root.fault(f"unknown entitlement {name!r}", "insecure-entitlements", hint=hint)
    return found


def _named(root: Table, *names: str) -> list[tuple[str, Table]]:
    """Return those of these tables that are there."""
    found = []
    for name in names:
        values = root.values.get(name)
        if values is None:
            continue
        if not isinstance(values, dict):
            raise root.fault(f"{name!r} is not a table", name)
        found.append((name, root.table(name)))
    return found


def _read_log(root: Table, _idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "log"):
        table.check_known("format", "level")
        level, form = table.text("level").lower(), table.text("format") or "text"
        if level and level not in _LEVELS:
            raise table.fault(f"unknown level {level!r}", "level", hint=", ".join(_LEVELS))
        if form not in ("text", "json"):
            raise table.fault(f"unknown format {form!r}", "format", hint="text or json")
        return {"log_level": level, "log_format": form}
    return {}


def _read_grpc(root: Table, idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "grpc"):
        table.check_known("address", "debugAddress", "uid", "gid", "tls", "securityDescriptor")
        idle += [f"grpc.{key}" for key in ("debugAddress", "securityDescriptor") if key in table.values]
        found: dict[str, Any] = {"addresses": table.texts("address")}
        for key in ("uid", "gid"):
            if key in table.values:
                found[key] = table.number(key)
        for _, tls in _named(table, "tls"):
            tls.check_known("cert", "key", "ca")
            files = TlsFiles(tls.text("cert"), tls.text("key"), tls.text("ca"))
            if not files.cert or not files.key:
                raise tls.fault("TLS needs both cert and key")
            found["tls"] = files
        return found
    return {}


def _read_otel(root: Table, _idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "otel"):
        table.check_known("socketPath")
        path = table.text("socketPath")
        if path and not path.startswith("/"):
            raise table.fault(f"not an absolute path: {path[:80]!r}", "socketPath")
        return {"trace_socket": path}
    return {}


def _read_cdi(root: Table, _idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "cdi"):
        table.check_known("disabled", "specDirs", "autoAllowed")
        if table.values.get("autoAllowed"):
            hint = 'let clients ask for devices: insecure-entitlements = ["device"]'
            raise table.fault("devices that every step gets are not carried out", "autoAllowed", hint=hint)
        return {"cdi_dirs": None if table.boolean("disabled") else table.texts("specDirs")}
    return {}


def _read_worker(root: Table, idle: list[str]) -> dict[str, Any]:
    for _, workers in _named(root, "worker"):
        workers.check_shape({"oci": OCI, "containerd": CONTAINERD})
        idle += [f"worker.{name}" for name, _ in _named(workers, "containerd")]
        for _, table in _named(workers, "oci"):
            idle += [f"worker.oci.{key}" for key in _IDLE_WORKER if key in table.values]
            for key, what in _WRONG_WORKER.items():
                if table.values.get(key):
                    raise table.fault(f"{what} are not carried out", key)
            if table.text("networkMode") not in ("", "auto", "host"):
                raise table.fault("steps are on the host's network, unless a build says otherwise", "networkMode")
            if "enabled" in table.values and not table.boolean("enabled"):
                raise table.fault("there is no other worker than this one", "enabled")
            return {
                "binary": table.text("binary"),
                "gc": {key: table.values[key] for key in GC_KEYS if key in table.values},
                "max_parallelism": table.number("max-parallelism") if "max-parallelism" in table.values else 0,
                "labels": _labels(table),
            }
    return {}


def _labels(table: Table) -> dict[str, str]:
    for _, labels in _named(table, "labels"):
        return {name: labels.text(name) for name in labels.values}
    return {}


def _read_frontends(root: Table, _idle: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _, frontends in _named(root, "frontend"):
        frontends.check_known("dockerfile.v0", "gateway.v0")
        for _, table in _named(frontends, "dockerfile.v0"):
            table.check_known("enabled")
            found["dockerfile_frontend"] = table.boolean("enabled") or "enabled" not in table.values
        for _, table in _named(frontends, "gateway.v0"):
            table.check_known("enabled", "allowedRepositories")
            found["gateway"] = table.boolean("enabled") or "enabled" not in table.values
            found["gateway_repositories"] = table.texts("allowedRepositories")
    return found


def _read_history(root: Table, _idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "history"):
        table.check_known("maxAge", "maxEntries")
        found: dict[str, Any] = {}
        if "maxAge" in table.values:
            age = table.values["maxAge"]
            found["history_age"] = age if isinstance(age, str) else table.number("maxAge")
        if "maxEntries" in table.values:
            found["history_entries"] = table.number("maxEntries")
        return found
    return {}


def _read_system(root: Table, idle: list[str]) -> dict[str, Any]:
    for _, table in _named(root, "system"):
        idle += [f"system.{key}" for key in table.values if key == "platformsCacheMaxAge"]
        return {"registry_connections": table.number("maxRegistryConcurrency")}
    return {}
