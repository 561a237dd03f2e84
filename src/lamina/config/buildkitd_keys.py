"""The keys of buildkitd.toml, all of them, with the types of their values: also of what is not carried out here.

So that a word that is spelled wrong is an error wherever it stands. Reference: BuildKit, docs/buildkitd.toml.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from lamina.config.document import Shape
from lamina.config.registries import GC_KEYS, POLICY_KEYS

ROOT = (
    *("root", "debug", "trace", "insecure-entitlements", "proxyNetwork", "provenanceEnvDir", "log", "dns", "grpc"),
    *("otel", "cdi", "history", "worker", "registry", "frontend", "system", "cache", "ghacache"),
    "sourcePolicy",  # ours, not BuildKit's
)
_NETWORK = {
    "networkMode": str,
    "cniConfigPath": str,
    "cniBinaryPath": str,
    "cniPoolSize": int,
    "cniNetworkNamespace": str,
    "bridgeName": str,
    "bridgeSubnet": str,
}
_SPACE = dict.fromkeys((key for key in GC_KEYS if key not in ("gc", "gcpolicy")), (int, str))
_POLICY: Shape = {
    **dict.fromkeys(POLICY_KEYS, (int, str)),
    "all": bool,
    "filters": [str],
}
_WORKER: Shape = {
    "enabled": bool,
    "platforms": [str],
    "snapshotter": str,
    "rootless": bool,
    "labels": {"*": str},
    "apparmor-profile": str,
    "selinux": bool,
    "max-parallelism": int,
    "defaultCgroupParent": str,
    "gc": bool,
    "gcpolicy": [_POLICY],
    **_SPACE,
    **_NETWORK,
}
OCI: Shape = {
    **_WORKER,
    "noProcessSandbox": bool,
    "binary": str,
    "proxySnapshotterPath": str,
    "userRemapUnsupported": str,
    "enableUserNSRemap": bool,
    "stargzSnapshotter": {"*": None},
}
CONTAINERD: Shape = {
    **_WORKER,
    "address": str,
    "namespace": str,
    "runtime": {"name": str, "path": str, "options": {"*": None}},
}
SIGSTORE = (
    *("certificateIssuer", "subjectAlternativeName", "issuer", "githubWorkflowTrigger", "githubWorkflowSHA"),
    *("githubWorkflowName", "githubWorkflowRepository", "githubWorkflowRef", "buildSignerURI", "buildSignerDigest"),
    *("runnerEnvironment", "sourceRepositoryURI", "sourceRepositoryDigest", "sourceRepositoryRef"),
    *("sourceRepositoryIdentifier", "sourceRepositoryOwnerURI", "sourceRepositoryOwnerIdentifier", "buildConfigURI"),
    *("buildConfigDigest", "buildTrigger", "runInvocationURI", "sourceRepositoryVisibilityAtSigning"),
)
"""What Sigstore's certificates say of who signed."""
_SIGNING: Shape = {
    "sign": {"cmd": (str, [str]), "command": [str]},
    "verify": {
        "required": bool,
        "policy": {"timestampThreshold": int, "tlogThreshold": int, **dict.fromkeys(SIGSTORE, str)},
    },
}
IDLE: Mapping[str, Shape] = {
    "dns": {"nameservers": [str], "options": [str], "searchDomains": [str]},
    "cache": {"gha": _SIGNING},
    "ghacache": _SIGNING,
    "system": {"platformsCacheMaxAge": (int, str), "maxRegistryConcurrency": int},
}
"""Tables nothing of which, or not all of which, is carried out: what may stand there."""
