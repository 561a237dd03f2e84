"""Where a registry's requests go: hosts, schemes, mirrors. Pure.

In comes a registry as references name it and the options; out come the endpoints to try, in order. Plain http is
only ever a candidate for this machine and for hosts that the user named.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.errors import InputError
from lamina.oci.reference import Reference
from lamina.registry.options import RegistryOptions
from lamina.registry.trust import is_loopback, split_host

DOCKER_HUB = "docker.io"
HUB_ADDRESS = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server that may hold a repository.

    Attributes:
        registry: the name that credentials are kept under and that messages show.
        address: `host[:port]` that is connected to.
        prefix: what stands before the repository's name on a mirror, "" or `a/b/`.
        schemes: candidates in order, `https` and perhaps `http`.
        verify: whether certificates are checked.
        mirror: whether it stands in for another registry.
    """

    registry: str
    address: str
    prefix: str = ""
    schemes: tuple[str, ...] = ("https",)
    verify: bool = True
    mirror: bool = False

    def repository(self, reference: Reference) -> str:
        """Return the name that `reference`'s repository has here."""
        return self.prefix + reference.repository


def own_endpoint(registry: str, options: RegistryOptions) -> Endpoint:
    """Return the endpoint of a registry itself."""
    address = HUB_ADDRESS if registry == DOCKER_HUB else registry
    schemes, verify = _security(registry, options)
    return Endpoint(registry, address, schemes=schemes, verify=verify)


def pull_endpoints(registry: str, options: RegistryOptions) -> list[Endpoint]:
    """Return the endpoints to pull from: mirrors in order, then the registry itself.

    Raises:
        InputError: a mirror is not `[scheme://]host[:port][/prefix]`.
    """
    found = [_parse_mirror(text, options) for text in options.mirrors.get(registry, ())]
    return [*found, own_endpoint(registry, options)]


def _parse_mirror(text: str, options: RegistryOptions) -> Endpoint:
    """Parse one mirror; an explicit `http://` is the user's word that plain http is meant."""
    scheme, colon, rest = text.partition("://")
    if not colon:
        scheme, rest = "", text
    address, _, prefix = rest.strip("/").partition("/")
    if scheme not in ("", "http", "https") or not address or "@" in rest or "?" in rest or "#" in rest:
        raise InputError(
            f"not a mirror: {text!r}", hint="write host[:port], with https:// or http:// before it if need be"
        )
    schemes, verify = _security(address, options)
    if scheme:
        schemes = (scheme,)
    return Endpoint(address, address, f"{prefix}/" if prefix else "", schemes, verify, mirror=True)


def _security(host: str, options: RegistryOptions) -> tuple[tuple[str, ...], bool]:
    """Return the schemes to try with `host`, and whether its certificate is checked."""
    if host in options.plain_http:
        return ("http",), True
    if host in options.insecure:
        return ("https", "http"), False
    if is_loopback(split_host(host)):
        # As docker does: this machine is trusted, whatever it speaks. A CA given by the user still counts.
        return ("https", "http"), options.ca is not None or host in options.host_ca
    return ("https",), True
