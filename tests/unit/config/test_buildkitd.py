"""buildkitd.toml: what is carried out, what has no meaning here, and what is refused with its line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lamina.config.buildkitd import DaemonConfig, TlsFiles, parse_buildkitd
from lamina.config.buildkitd_keys import CONTAINERD, IDLE, OCI, ROOT, SIGSTORE
from lamina.config.registries import GC_KEYS, POLICY_KEYS, RegistryConfig
from lamina.config.registries import KEYS as REGISTRY_KEYS
from lamina.errors import InputError

EXAMPLE = Path(__file__).parents[3] / "examples" / "buildkitd.toml"
WHOLE = """
root = "/srv/build"
debug = true
insecure-entitlements = ["network.host", "device"]
[log]
  format = "json"
  level = "debug"
[grpc]
  address = ["unix:///run/b.sock", "tcp://0.0.0.0:1234"]
  debugAddress = "0.0.0.0:6060"
  uid = 0
  gid = 7
  [grpc.tls]
    cert = "s.pem"
    key = "s.key"
    ca = "ca.pem"
[otel]
  socketPath = "/run/otel.sock"
[cdi]
  specDirs = ["/etc/cdi"]
[history]
  maxAge = "48h"
  maxEntries = 50
[worker.oci]
  enabled = true
  snapshotter = "auto"
  gc = true
  reservedSpace = "30%"
  maxUsedSpace = "60%"
  minFreeSpace = "20GB"
  binary = "crun"
  apparmor-profile = ""
  max-parallelism = 4
  cniPoolSize = 16
  [worker.oci.labels]
    "foo" = "bar"
  [[worker.oci.gcpolicy]]
    keepDuration = "48h"
    filters = ["type==source.local"]
  [[worker.oci.gcpolicy]]
    all = true
    reservedSpace = 1024000000
[worker.containerd]
  namespace = "buildkit"
[registry."docker.io"]
  mirrors = ["mirror.example:5000"]
[frontend."gateway.v0"]
  enabled = true
  allowedRepositories = ["docker/dockerfile"]
[system]
  platformsCacheMaxAge = "1h"
"""


def test_a_whole_file_as_buildkit_documents_it():
    """H8, H15, H17: the same file serves both daemons."""
    found = parse_buildkitd(WHOLE, "b.toml")

    assert (found.root, found.debug, found.entitlements) == ("/srv/build", True, ("network.host", "device"))
    assert found.addresses == ("unix:///run/b.sock", "tcp://0.0.0.0:1234")
    assert found.tls == TlsFiles("s.pem", "s.key", "ca.pem")
    assert (found.uid, found.gid, found.log_level, found.log_format) == (0, 7, "debug", "json")
    assert (found.binary, found.max_parallelism, found.labels) == ("crun", 4, {"foo": "bar"})
    assert (found.history_age, found.history_entries, found.cdi_dirs) == ("48h", 50, ("/etc/cdi",))
    assert found.gc["maxUsedSpace"] == "60%" and len(found.gc["gcpolicy"]) == 2
    assert found.registries["docker.io"].mirrors == ("mirror.example:5000",)
    assert found.trace_socket == "/run/otel.sock"
    assert found.gateway_repositories == ("docker/dockerfile",)


def test_what_has_no_meaning_here_is_named():
    assert parse_buildkitd(WHOLE, "b.toml").without_meaning == (
        "grpc.debugAddress",
        "worker.containerd",
        "worker.oci.snapshotter",
        "worker.oci.cniPoolSize",
        "system.platformsCacheMaxAge",
    )


def keys_of(text: str) -> set[str]:
    """Return the keys of a file, those that are commented out, too."""
    found = re.findall(r"^(?:# )?([A-Za-z-]+) =", text, re.MULTILINE)
    for header in re.findall(r"^(?:# )?\[\[?(.+?)\]\]?(?: |$)", text, re.MULTILINE):
        found += re.findall(r"[\w-]+", re.sub(r'"[^"]*"', "", header))
    return set(found)


def all_keys(shape: Any) -> set[str]:
    found: set[str] = set()
    for key, below in shape.items():
        found |= {key} - {"*"}
        for one in below if isinstance(below, list) else [below]:
            if isinstance(one, Mapping):
                found |= all_keys(one)
    return found


def test_the_example_holds_every_key_there_is():
    """H17: whoever looks for a key finds it in one place, with what it means here."""
    text = EXAMPLE.read_text()
    known = {*ROOT, *all_keys(OCI), *all_keys(CONTAINERD), *all_keys(IDLE), *GC_KEYS, *POLICY_KEYS, *REGISTRY_KEYS}
    rare = {"cmd", *SIGSTORE} - {"certificateIssuer", "subjectAlternativeName", "buildSignerURI"}
    rare |= {"ghacache", "gckeepstorage"}  # other names of what is there

    assert known - rare - keys_of(text) == set()


def test_the_example_is_understood():
    """H6, H8, H15, H17: a golden result of a whole file."""
    found = parse_buildkitd(EXAMPLE.read_text(), "buildkitd.toml")

    assert found == DaemonConfig(
        root="/srv/lamina",
        source_policy="policy.json",
        entitlements=("network.host",),
        addresses=("unix:///run/lamina/lamina.sock", "tcp://0.0.0.0:1234"),
        uid=0,
        gid=998,
        tls=TlsFiles("tls/server.pem", "tls/server.key", "tls/clients.pem"),
        log_level="warning",
        log_format="json",
        binary="crun",
        gc={
            "gc": True,
            "reservedSpace": "5GB",
            "maxUsedSpace": "60%",
            "minFreeSpace": "10%",
            "maxStorage": "80GB",
            "gcpolicy": [
                {
                    "filters": ["type==source.local", "type==exec.cachemount"],
                    "keepDuration": "24h",
                    "reservedSpace": 256 << 20,
                    "maxUsedSpace": "2GB",
                    "minFreeSpace": "5GB",
                },
                {"all": True, "keepBytes": "20GB"},
            ],
        },
        labels={"zone": "here"},
        max_parallelism=8,
        registries={
            "docker.io": RegistryConfig(mirrors=("hub.mirror.example", "cache.example:5000/hub")),
            "cache.example:5000": RegistryConfig(http=True),
            "private.example": RegistryConfig(
                ca=("tls/private.pem",), keypairs=(("tls/me.pem", "tls/me.key"),), tls_dirs=("/etc/lamina/certs",)
            ),
        },
        gateway_repositories=("frontends.example/team/one",),
        cdi_dirs=("/etc/cdi", "/run/cdi"),
        trace_socket="/run/lamina/otel.sock",
        history_age="336h",
        history_entries=200,
        registry_connections=6,
        without_meaning=(
            *("provenanceEnvDir", "cache", "grpc.debugAddress", "grpc.securityDescriptor"),
            *("worker.containerd", "worker.oci.userRemapUnsupported", "worker.oci.snapshotter"),
            *("worker.oci.rootless", "worker.oci.noProcessSandbox", "worker.oci.cniPoolSize"),
            *("worker.oci.proxySnapshotterPath", "worker.oci.stargzSnapshotter", "worker.oci.platforms"),
            *("worker.oci.bridgeName", "worker.oci.bridgeSubnet", "system.platformsCacheMaxAge"),
        ),
    )


def test_what_the_example_comments_out_is_refused():
    """It would change what steps may do: nobody is left to believe that it is so."""
    lines = EXAMPLE.read_text().split("\n")
    numbers = [number for number, line in enumerate(lines) if re.match(r"# [A-Za-z-]+ =", line)]

    assert len(numbers) >= 12
    for number in numbers:
        changed = list(lines)
        changed[number] = lines[number].removeprefix("# ")
        if number > lines.index("# [dns]"):
            changed[lines.index("# [dns]")] = "[dns]"
        with pytest.raises(InputError, match=r"not carried out|cannot be set"):
            parse_buildkitd("\n".join(changed), "b.toml")


def test_levels_are_those_of_buildkit():
    for level in ("panic", "fatal", "error", "warn", "warning", "info", "debug", "trace", "WARNING"):
        assert parse_buildkitd(f"[log]\nlevel = '{level}'", "b.toml").log_level == level.lower()


def test_nothing_is_the_default():
    assert parse_buildkitd("", "b.toml") == DaemonConfig()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("rooot = 1", 1, "unknown key 'rooot'"),
        ("\n[worker.oci]\nmax-paralelism = 4", 3, "'max-paralelism' in worker.oci"),
        ("[grpc]\naddress = 'unix:///x'", 2, "'address' is not a list"),
        ("[grpc.tls]\ncert = 'a'", 1, "both cert and key"),
        ("[otel]\nsocketPath = 'otel.sock'", 2, "not an absolute path"),
        ("[log]\nlevel = 'loud'", 2, "unknown level 'loud'"),
        ("[dns]\nnameservers = ['1.1.1.1']", 1, "name servers"),
        ("proxyNetwork = true", 1, "proxy network"),
        ("[worker.oci]\nenabled = false", 2, "no other worker"),
        ("[worker.oci]\napparmor-profile = 'x'", 2, "AppArmor"),
        ("[worker.oci]\nmax-parallelism = -1", 2, "negative"),
        ("[[worker.oci.gcpolicy]]\nkeepDurations = 1", 2, "unknown key 'keepDurations'"),
        ("[frontend.'cobol.v0']\nenabled = true", 1, "unknown key 'cobol.v0'"),
        ("[registry.'docker.io']\nmirror = []", 2, "unknown key 'mirror'"),
        ("[worker]\noci = 5", 2, "'oci' is not a table"),
        ("insecure-entitlements = ['root']", 1, "unknown entitlement 'root'"),
        ("[worker.oci]\nnetworkMode = 'none'", 2, "host's network"),
        ("[worker.oci]\ndefaultCgroupParent = 'x'", 2, "control groups"),
        ("[cdi]\nautoAllowed = ['vendor.com/gpu']", 2, "every step gets"),
        ("[otel]\nsocketpath = 'x'", 2, "unknown key 'socketpath' in otel"),
        ("[otel]\nsocketPath = 5", 2, "'socketPath' is not a text"),
        ("[worker.containerd]\nadress = 'x'", 2, "unknown key 'adress' in worker.containerd"),
        ("[worker.containerd.runtime]\nnam = 'x'", 2, "unknown key 'nam'"),
        ("[[worker.containerd.gcpolicy]]\nal = true", 2, "unknown key 'al'"),
        ("[worker.oci]\nsnapshotter = 1", 2, "'snapshotter' is not a text"),
        ("[worker.oci]\nplatforms = 'x'", 2, "'platforms' is not a list of texts"),
        ("[worker.oci]\nreservedSpace = true", 2, "'reservedSpace' is not a whole number or a text"),
        ("[worker.oci.labels]\na = 1", 2, "'a' is not a text"),
        ("[system]\nmaxRegistryConcurency = 1", 2, "unknown key 'maxRegistryConcurency'"),
        ("[system]\nplatformsCacheMaxAge = true", 2, "a whole number or a text"),
        ("[dns]\nnameserver = ['x']", 2, "unknown key 'nameserver'"),
        ("[ghacache.sign]\ncmmd = ''", 2, "unknown key 'cmmd'"),
        ("[cache.gha.verify.policy]\nissuers = ''", 2, "unknown key 'issuers'"),
        ("[cache]\nghaa = 1", 2, "unknown key 'ghaa'"),
        ("otel = 3", 1, "'otel' is not a table"),
        ("trace = 3", 1, "'trace' is not true or false"),
        ("debug = 'yes'", 1, "'debug' is not true or false"),
        ("[[", 1, "not TOML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(text: str, line: int, words: str):
    with pytest.raises(InputError) as failed:
        parse_buildkitd(text, "b.toml")

    assert words in failed.value.what
    assert failed.value.source is not None
    assert (failed.value.source.file, failed.value.source.start) == ("b.toml", line)
