"""`--ca host`: steps trust what the host trusts, without a trace in the layer.

The host's certificates are mounted at a path of their own, and the variables that common programs read point
there. Neither the mounts nor the variables count in a cache key or reach the image.
"""

from __future__ import annotations

from lamina.executor.step import StepMount
from lamina.ops.worker import HostTrust

BUNDLE = "/run/lamina/ca-certificates.crt"
_JAVA_STORE = "/run/lamina/java-cacerts"
_APT_CONFIG = "/run/lamina/apt.conf"

_VARIABLES = (
    "SSL_CERT_FILE",  # openssl, python ssl, go, ruby
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "REQUESTS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "NIX_SSL_CERT_FILE",
)


def trust_environment(trust: HostTrust | None) -> tuple[dict[str, str], tuple[StepMount, ...]]:
    """Return the variables and mounts for one step; nothing when `trust` is None."""
    if trust is None:
        return {}, ()
    variables = dict.fromkeys(_VARIABLES, BUNDLE)
    mounts = [StepMount(BUNDLE, "bind", source=trust.bundle, readonly=True)]
    apt = f'Acquire::https::CAInfo "{BUNDLE}";\n'.encode()
    mounts.append(StepMount(_APT_CONFIG, "secret", data=apt, mode=0o444))
    variables["APT_CONFIG"] = _APT_CONFIG
    if trust.java_store:
        mounts.append(StepMount(_JAVA_STORE, "bind", source=trust.java_store, readonly=True))
        variables["JAVA_TOOL_OPTIONS"] = (
            f"-Djavax.net.ssl.trustStore={_JAVA_STORE} -Djavax.net.ssl.trustStorePassword=changeit"
        )
    return variables, tuple(mounts)
