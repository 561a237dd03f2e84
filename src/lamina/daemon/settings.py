"""From what the command line and buildkitd.toml say to how the daemon runs. Pure but for reading the one file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from lamina.config.buildkitd import DaemonConfig, TlsFiles, parse_buildkitd
from lamina.daemon.builder import Settings
from lamina.engine.options import Environment
from lamina.engine.upkeep.amounts import parse_seconds
from lamina.engine.upkeep.policy import parse_policies
from lamina.errors import InputError
from lamina.policy.read import MAX_BYTES, parse_policy
from lamina.policy.values import Policy

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Running:
    """How the daemon runs.

    Attributes:
        environment: for all builds; `settings` for what clients may do.
        addresses: to listen on.
        tls: None for none.
    """

    environment: Environment
    settings: Settings
    addresses: tuple[str, ...]
    tls: TlsFiles | None


def read_config(path: Path, *, must_be: bool) -> DaemonConfig:
    """Return what a buildkitd.toml says; nothing where there is none and none must be.

    Raises:
        InputError: it cannot be read, or says what it must not.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
        return parse_buildkitd(data.decode("utf-8"), str(path))
    except (FileNotFoundError, NotADirectoryError):
        if must_be:
            raise InputError("no such configuration file", where=str(path)) from None
        return DaemonConfig()
    except OSError as error:
        raise InputError(f"the configuration cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("the configuration is not UTF-8 text", where=str(path)) from error


def running(config: DaemonConfig, base: Path, environment: Environment, given: Settings) -> Running:
    """Put together what was configured and what was given; what was given counts more.

    Args:
        base: what paths of the configuration are relative to.
        given: of the command line.

    Raises:
        InputError: policies that cannot be understood, or read.
    """
    changes: dict[str, object] = {}
    if config.gc:
        changes["gc"] = replace(parse_policies(config.gc, "worker.oci"), max_storage=environment.gc.max_storage)
    if config.binary:
        changes["runtime"] = config.binary
    if config.registries:
        changes["registries"], changes["registries_base"] = config.registries, base
    if config.registry_connections:
        changes["registry_connections"] = config.registry_connections
    if config.history_age or config.history_entries is not None:
        keeping = environment.history
        age_s = parse_seconds(config.history_age, "history.maxAge") or keeping.age_s
        builds = keeping.builds if config.history_entries is None else config.history_entries
        changes["history"] = replace(keeping, age_s=age_s, builds=builds)
    frontends = {"dockerfile.v0": config.dockerfile_frontend, "gateway.v0": config.gateway}
    settings = replace(
        given,
        entitlements=given.entitlements | frozenset(config.entitlements),
        max_parallelism=given.max_parallelism or config.max_parallelism,
        frontends=frozenset(name for name, enabled in frontends.items() if enabled),
        gateway_repositories=config.gateway_repositories,
        labels={**config.labels, **given.labels},
        source_policy=_source_policy(base / config.source_policy) if config.source_policy else None,
        cdi_dirs=("/nonexistent",) if config.cdi_dirs is None else config.cdi_dirs,
    )
    return Running(replace(environment, **changes), settings, config.addresses, config.tls)  # type: ignore[arg-type]


def _source_policy(path: Path) -> Policy:
    """Return the policy that holds for every build.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        with open(path, "rb") as file:
            return parse_policy(file.read(MAX_BYTES + 1).decode("utf-8"), str(path))
    except OSError as error:
        raise InputError(f"the source policy cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise InputError("the source policy is not UTF-8 text", where=str(path)) from error
