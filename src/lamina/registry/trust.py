"""Which host may be talked to, and which may see credentials. Pure decisions over URLs.

A registry is a stranger that can name other hosts: in `WWW-Authenticate` realms, redirects, upload locations.
Rules kept here: credentials of a registry go to that registry, and to a token server on its own site or one that
the user named; an Authorization header never leaves its origin; https never becomes http; a public registry
cannot send us to this machine or to link-local addresses (where clouds keep their metadata services).
Advisories: CVE-2020-15157 and its relatives.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

_SECOND_LEVEL = frozenset(("ac", "co", "com", "edu", "go", "gov", "gob", "gouv", "ne", "net", "nom", "or", "org"))


def split_host(host: str) -> str:
    """Return the name or address in `host[:port]`, in lower case, without port and brackets."""
    return (urlsplit("//" + host).hostname or "").lower()


def origin_of(url: str) -> tuple[str, str, int]:
    """Return (scheme, host, port) with the default port filled in."""
    parts = urlsplit(url)
    return parts.scheme, (parts.hostname or "").lower(), parts.port or (443 if parts.scheme == "https" else 80)


def is_loopback(name: str) -> bool:
    """Tell whether `name` (no port) is this machine: localhost, 127.x or ::1."""
    name = name.lower().strip("[]").rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = _address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def same_site(one: str, other: str) -> bool:
    """Tell whether two host names belong together: equal, or under the same registrable domain.

    The registrable domain is taken as the last two labels, or three where the second-last is one of the usual
    second-level names of a country (`co.uk`). Addresses are only ever the same as themselves.
    """
    one, other = one.lower().rstrip("."), other.lower().rstrip(".")
    if one == other:
        return True
    if _address(one) or _address(other) or is_loopback(one) or is_loopback(other):
        return is_loopback(one) and is_loopback(other)
    mine, theirs = _registrable(one), _registrable(other)
    return bool(mine) and mine == theirs


def realm_fault(registry_url: str, realm: str, *, with_credentials: bool, trusted: Collection[str] = ()) -> str:
    """Return why a token must not be fetched from `realm` on behalf of a registry, or "" when it may.

    Args:
        registry_url: the URL that answered 401.
        realm: where it sends us for a token.
        with_credentials: whether the user's credentials would be sent there.
        trusted: further hosts (`name` or `name:port`) that the user named for this registry.
    """
    try:
        parts = urlsplit(realm)
        scheme, host, port = origin_of(realm)
    except ValueError:
        return "it is not a URL"
    registry_scheme, registry_host, _ = origin_of(registry_url)
    if scheme not in ("http", "https") or not host or "@" in parts.netloc or len(realm) > 4096:
        return "it is not an http or https URL"
    if host in trusted or f"{host}:{port}" in trusted:
        return "" if scheme == "https" or registry_scheme == "http" else "it is not https"
    if scheme == "http" and not (registry_scheme == "http" and same_site(registry_host, host)):
        return "it is not https"
    if not same_site(registry_host, host):
        if _is_inside(host):
            return "it points into a private network"
        if with_credentials:
            return "it is on another site than the registry, and credentials would be sent there"
    return ""


def redirect_fault(source: str, target: str) -> str:
    """Return why an answer from `source` must not send us to `target`, or "" when it may (without credentials)."""
    source_scheme, source_host, _ = origin_of(source)
    scheme, host, _ = origin_of(target)
    if source_scheme == "https" and scheme != "https":
        return "it leads from https to plain http"
    if source_host == host or is_loopback(source_host):
        return ""
    address = _address(host)
    if is_loopback(host) or (address is not None and (address.is_link_local or address.is_unspecified)):
        return "it leads from another host to this machine or its link"
    return ""


def bypasses_proxy(host: str, port: int, no_proxy: str) -> bool:
    """Tell whether `no_proxy` (names, .suffixes, addresses, networks, `*`; each with optional port) covers a host."""
    if is_loopback(host):
        return True
    address = _address(host)
    for rule in (part.strip().lower() for part in no_proxy.split(",")):
        if not rule:
            continue
        if rule == "*":
            return True
        name, colon, wanted_port = rule.rpartition(":")
        if colon and wanted_port.isdigit() and "]" not in wanted_port and ":" not in name.strip("[]"):
            if int(wanted_port) != port:
                continue
            rule = name
        if address is not None:
            try:
                if address in ipaddress.ip_network(rule.strip("[]"), strict=False):
                    return True
            except ValueError:
                pass
        rule = rule.removeprefix("*")
        if host == rule.lstrip(".") or host.endswith("." + rule.lstrip(".")):
            return True
    return False


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the IP address that `name` spells, or None; IPv4 mapped into IPv6 counts as the IPv4 address."""
    try:
        address = ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        # inet_aton spellings (2852039166, 0xa9fea9fe, 127.1) reach the same sockets as the dotted ones.
        return _old_spelling(name)
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _old_spelling(name: str) -> ipaddress.IPv4Address | None:
    """Return the address of a numeric host name such as `127.1` or `0x7f000001`, or None."""
    if not name or not (name[0].isdigit() and name.rsplit(".", 1)[-1][:1].isdigit()):
        return None
    from socket import inet_aton

    try:
        return ipaddress.IPv4Address(inet_aton(name))
    except (OSError, UnicodeError):
        return None


def _is_inside(host: str) -> bool:
    """Tell whether `host` is an address, or a name, that only has a meaning on some inside network."""
    address = _address(host)
    return is_loopback(host) or (address is not None and not address.is_global) or "." not in host.strip(".")


def _registrable(name: str) -> str:
    """Return the part of a host name that is registered by one owner, or "" when there is none."""
    labels = name.split(".")
    count = 3 if len(labels) >= 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    return ".".join(labels[-count:]) if len(labels) >= count else ""
