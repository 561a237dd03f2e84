"""How registries are reached: the configuration file, docker's directories of certificates, the environment.

Read when a registry is used for the first time, never before: a fully cached build reads none of it. What the
environment says (`LAMINA_REGISTRY_MIRRORS`) goes before the file; a host's certificates are taken from the file if
it names any, else from the first directory that has some (dockerd's documentation, "Understand the configuration").
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lamina.engine.options import Environment
from lamina.errors import InputError
from lamina.registry.endpoint import DOCKER_HUB, HUB_ADDRESS
from lamina.registry.options import Proxies, RegistryOptions
from lamina.session import Credentials, FetchingTokens, Session

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.config.registries import RegistryConfig
    from lamina.registry.auth import CredentialSource

_MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class _Own:
    """Credentials of a user who may fetch tokens: what `FetchingTokens` asks for, and callable as a source."""

    session: Session
    tokens: FetchingTokens

    def __call__(self, host: str) -> Credentials | None:
        return self.session.credentials(host)

    def token(self, host: str, realm: str, service: str, scopes: Sequence[str]) -> tuple[str, float] | None:
        return self.tokens.token(host, realm, service, scopes)


def credentials_of(session: Session) -> CredentialSource:
    """Return what opens registries for a session's user."""
    return _Own(session, session) if isinstance(session, FetchingTokens) else session.credentials


@dataclass(slots=True)
class _Trust:
    """Certificates for one host."""

    ca: list[Path] = field(default_factory=list)
    pairs: list[tuple[Path, Path]] = field(default_factory=list)


def network_options(environment: Environment) -> RegistryOptions:
    """Return how servers in general are reached: what the environment says. Reads nothing."""
    proxies = environment.proxies
    default = RegistryOptions()
    return RegistryOptions(
        connections_per_host=environment.registry_connections or default.connections_per_host,
        mirrors=environment.registry_mirrors,
        insecure=frozenset(environment.insecure_registries),
        ca=Path(environment.ca_file) if environment.ca_file else None,
        proxies=Proxies(proxies.get("http_proxy", ""), proxies.get("https_proxy", ""), proxies.get("no_proxy", "")),
    )


def registry_options(environment: Environment) -> RegistryOptions:
    """Return how registries are reached. Reads the configuration file and lists directories of certificates.

    Raises:
        InputError: a file that cannot be read or is not right; named with its line.
    """
    options = network_options(environment)
    path, hosts = load_config(environment)
    trust: dict[str, _Trust] = {}
    for host, config in hosts.items():
        found = trust.setdefault(host, _Trust())
        found.ca += [path.parent / name for name in config.ca]
        found.pairs += [(path.parent / certificate, path.parent / key) for certificate, key in config.keypairs]
        for folder in config.tls_dirs:
            _add_folder(found, path.parent / folder, must_exist=True)
    for parent in environment.cert_dirs:
        for host in _list(parent, must_exist=False):
            if not (host in trust and (trust[host].ca or trust[host].pairs)):
                _add_folder(trust.setdefault(host, _Trust()), parent / host, must_exist=False)
    if DOCKER_HUB in trust:
        trust.setdefault(HUB_ADDRESS, trust[DOCKER_HUB])  # where its requests really go
    return replace(
        options,
        mirrors={**{host: config.mirrors for host, config in hosts.items() if config.mirrors}, **options.mirrors},
        insecure=options.insecure | {host for host, config in hosts.items() if config.insecure},
        plain_http=frozenset(host for host, config in hosts.items() if config.http),
        host_ca={host: tuple(found.ca) for host, found in trust.items() if found.ca},
        client_certs={host: tuple(found.pairs) for host, found in trust.items() if found.pairs},
    )


def load_config(environment: Environment) -> tuple[Path, dict[str, RegistryConfig]]:
    """Return the configuration file's path and what it says; the first of the candidates that is there counts.

    Raises:
        InputError: it cannot be read, is not text or not right; or the user named one that is not there.
    """
    if environment.registries is not None:
        return environment.registries_base / "registries", dict(environment.registries)
    for path in environment.config_files:
        try:
            with open(path, "rb") as file:
                data = file.read(_MAX_BYTES + 1)
            from lamina.config.registries import parse_lamina_config

            return path, dict(parse_lamina_config(data.decode("utf-8"), str(path)))
        except (FileNotFoundError, NotADirectoryError):
            if environment.config_is_named:
                hint = "LAMINA_CONFIG names it"
                raise InputError("no such configuration file", where=str(path), hint=hint) from None
        except OSError as error:
            raise InputError(f"the configuration cannot be read: {error.strerror}", where=str(path)) from error
        except UnicodeDecodeError as error:
            raise InputError("the configuration is not UTF-8 text", where=str(path)) from error
    return Path(), {}


def _add_folder(trust: _Trust, folder: Path, *, must_exist: bool) -> None:
    """Add what lies in a directory: `*.crt` are authorities, `*.cert` with `*.key` are shown to the server."""
    for name in _list(folder, must_exist=must_exist):
        stem, ending = os.path.splitext(name)
        if ending == ".crt":
            trust.ca.append(folder / name)
        elif ending == ".cert":  # a key that is not there is missed when this host is asked, and not before
            trust.pairs.append((folder / name, folder / f"{stem}.key"))


def _list(folder: Path, *, must_exist: bool) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if must_exist:
            what = f"the directory of certificates cannot be read: {error.strerror}"
            raise InputError(what, where=str(folder)) from error
        return []
