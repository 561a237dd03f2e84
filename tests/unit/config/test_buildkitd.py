"""buildkitd.toml: what is carried out, what has no meaning here, and what is refused with its line."""

import pytest

from lamina.config.buildkitd import DaemonConfig, TlsFiles, parse_buildkitd
from lamina.errors import InputError

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
