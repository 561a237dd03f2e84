"""Where traces go, in the words of OpenTelemetry's environment variables. Pure: variables in, values out.

Specification: OpenTelemetry, "Environment Variable Specification" and "OTLP Exporter Configuration". The variables
for traces alone (`OTEL_EXPORTER_OTLP_TRACES_...`) count before the general ones; an empty one is one not set. Other
than by the specification's default, nothing is sent unless a variable names a place or the exporter: a build tool that
looks for a collector nobody spoke of would wait for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from lamina.errors import InputError
from lamina.tracing.context import SERVICE, TraceContext, parse_traceparent

UNIX = "unix://"
PROTOBUF, JSON, GRPC = "http/protobuf", "http/json", "grpc"
_DEFAULT_ENDPOINT = "http://localhost:4318"
_DEFAULT_GRPC_ENDPOINT = "http://localhost:4317"
_GRPC_PORT = 4317
_PATH = "v1/traces"
_DEFAULT_TIMEOUT_S = 10.0
_MAX_TIMEOUT_S = 600.0
_SAMPLERS = ("always_on", "always_off", "traceidratio")
_MAX_PAIRS = 100
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")  # RFC 9110


@dataclass(frozen=True, slots=True)
class Sampler:
    """Which traces are sent.

    Attributes:
        ratio: of the traces that begin here.
        by_parent: of those that began elsewhere, the ones that were sampled there.
    """

    ratio: float = 1.0
    by_parent: bool = True

    def wants(self, trace_id: bytes, parent: TraceContext | None) -> bool:
        """Tell whether a trace is sent."""
        if self.by_parent and parent is not None:
            return parent.sampled
        return int.from_bytes(trace_id[8:]) >> 1 < self.ratio * (1 << 63)


@dataclass(frozen=True, slots=True)
class TraceSettings:
    """How traces are sent.

    Attributes:
        url: of the collector's resource for traces.
        headers: of each request; may hold credentials.
        timeout_s: for one request; `timeout_given` when somebody said so.
        gzip: compress what is sent; not over gRPC.
        protocol: `PROTOBUF` or `JSON` over HTTP, or `GRPC`.
        certificate: PEM bundle that the collector's certificate is checked with, "" for the system's.
        client_certificate, client_key: shown to the collector.
        resource: attributes of this program.
        parent: the span of the program that started this one.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = _DEFAULT_TIMEOUT_S
    timeout_given: bool = False
    gzip: bool = False
    protocol: str = PROTOBUF
    certificate: str = ""
    client_certificate: str = ""
    client_key: str = ""
    resource: Mapping[str, str] = field(default_factory=dict)
    sampler: Sampler = field(default_factory=Sampler)
    parent: TraceContext | None = None


def parse_settings(variables: Mapping[str, str]) -> TraceSettings | None:
    """Return how traces are sent, None when they are not.

    Raises:
        InputError: a variable that makes no sense, or asks for what is not there.
    """
    exporter = variables.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    general, own = variables.get("OTEL_EXPORTER_OTLP_ENDPOINT", ""), _own(variables, "ENDPOINT")
    if variables.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return None
    if not exporter and not general and not own:
        return None
    if exporter not in ("", "otlp"):
        raise InputError(f"OTEL_TRACES_EXPORTER={exporter[:80]!r} is not offered", hint="otlp, or none")
    timeout = _either(variables, "TIMEOUT")
    protocol = _choice(_either(variables, "PROTOCOL"), "PROTOCOL", (PROTOBUF, JSON, GRPC))
    protocol = protocol or (GRPC if _is_grpcs(own or general) else PROTOBUF)
    return TraceSettings(
        url=_grpc_url(own or general) if protocol == GRPC else _url(general, own),
        headers={name.lower(): value for name, value in _headers(variables).items()},
        timeout_s=_timeout(timeout) if timeout else _DEFAULT_TIMEOUT_S,
        timeout_given=bool(timeout),
        gzip=_choice(_either(variables, "COMPRESSION"), "COMPRESSION", ("none", "gzip")) == "gzip",
        protocol=protocol,
        certificate=_either(variables, "CERTIFICATE"),
        client_certificate=_either(variables, "CLIENT_CERTIFICATE"),
        client_key=_either(variables, "CLIENT_KEY"),
        resource=_resource(variables),
        sampler=_sampler(variables),
        parent=parse_traceparent(variables.get("TRACEPARENT", ""), variables.get("TRACESTATE", "")),
    )


def _own(variables: Mapping[str, str], name: str) -> str:
    return variables.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}", "").strip()


def _either(variables: Mapping[str, str], name: str) -> str:
    return _own(variables, name) or variables.get(f"OTEL_EXPORTER_OTLP_{name}", "").strip()


def _url(general: str, own: str) -> str:
    """Return where to post: a place for traces alone as it is, else the resource for traces below the general one."""
    text = _checked(own or general.strip() or _DEFAULT_ENDPOINT)
    if own:
        return text if urlsplit(text).path else f"{text}/"
    return f"{text.rstrip('/')}/{_PATH}"


def _grpc_url(text: str) -> str:
    """Return where to connect to: a socket's path, or a host; any other path means nothing to gRPC."""
    if text.strip().startswith(f"{UNIX}/") and text.strip().isprintable():
        return text.strip()
    parts = urlsplit(_checked(text.strip() or _DEFAULT_GRPC_ENDPOINT))
    return f"{parts.scheme}://{parts.netloc}"


def _is_grpcs(text: str) -> bool:
    """Tell whether a place is a socket, or the port that is registered for OTLP over gRPC: it can mean nothing else."""
    try:
        return text.strip().startswith(UNIX) or urlsplit(text.strip()).port == _GRPC_PORT
    except ValueError:
        return False


def _checked(text: str) -> str:
    """Return a URL that can be sent to.

    Raises:
        InputError: it is none.
    """
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text or parts.query or parts.fragment:
        what = "OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT): not a place to send traces to"
        raise InputError(what, hint="http://HOST:4318, or https://")
    return text


def _timeout(text: str) -> float:
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not int(text):
        raise InputError(f"OTEL_EXPORTER_OTLP_TIMEOUT={text[:40]!r} is not a number of milliseconds")
    return min(int(text) / 1000, _MAX_TIMEOUT_S)


def _choice(text: str, name: str, known: tuple[str, ...]) -> str:
    if text and text not in known:
        raise InputError(f"OTEL_EXPORTER_OTLP_{name}={text[:40]!r} is not offered", hint=", ".join(known))
    return text


def _pairs(text: str, name: str) -> dict[str, str]:
    """Return `name=value,name=value`, with values as in URLs (W3C Baggage); `name` is the variable's."""
    found: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        key, value = unquote(key.strip()), unquote(value.strip())
        if not equals or not key or not (key + value).isprintable() or len(found) >= _MAX_PAIRS:
            raise InputError(f"{name}: not a list of name=value")  # values may be secrets
        found[key] = value
    return found


def _headers(variables: Mapping[str, str]) -> dict[str, str]:
    name = "OTEL_EXPORTER_OTLP_HEADERS"
    found = _pairs(_either(variables, "HEADERS"), name)
    if not all(_TOKEN.fullmatch(key) and value.isascii() for key, value in found.items()):
        raise InputError(f"{name}: something that no HTTP header can be")
    return found


def _resource(variables: Mapping[str, str]) -> dict[str, str]:
    from lamina import __version__

    given = _pairs(variables.get("OTEL_RESOURCE_ATTRIBUTES", ""), "OTEL_RESOURCE_ATTRIBUTES")
    service = variables.get("OTEL_SERVICE_NAME", "").strip()
    named = {"service.name": service} if service else {}
    return {"service.name": SERVICE, "service.version": __version__, **given, **named}


def _sampler(variables: Mapping[str, str]) -> Sampler:
    text = variables.get("OTEL_TRACES_SAMPLER", "").strip().lower() or "parentbased_always_on"
    kind = text.removeprefix("parentbased_")
    if kind not in _SAMPLERS:
        raise InputError(f"OTEL_TRACES_SAMPLER={text[:80]!r} is not offered", hint=", ".join(_SAMPLERS))
    ratio = {"always_on": 1.0, "always_off": 0.0}.get(kind)
    if ratio is None:
        argument = variables.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
        try:
            ratio = float(argument)
        except ValueError:
            ratio = -1.0
        if not 0 <= ratio <= 1:
            raise InputError(f"OTEL_TRACES_SAMPLER_ARG={argument[:40]!r} is not a number from 0 to 1")
    return Sampler(ratio, text.startswith("parentbased_"))
