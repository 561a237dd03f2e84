"""What one build is asked to do, as plain values.

`BuildOptions` says what docker and buildx users say on their command line; `Environment` holds what rank 7
read from the process environment, so that nothing below reads it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lamina.cache.changes import Explanation
    from lamina.config.registries import RegistryConfig
    from lamina.tracing.tracer import Tracer

from lamina.engine.upkeep.policy import Policies
from lamina.errors import InputError
from lamina.history.keeping import Keeping

_ON = ("1", "t", "T", "TRUE", "true", "True")
_OFF = ("0", "f", "F", "FALSE", "false", "False")


@dataclass(slots=True)
class Environment:
    """The machine's side of a build: where programs, configuration and the state lie.

    Attributes:
        root: state directory (see docs/architecture.md, "On disk").
        search_path: PATH for the OCI runtime, git and credential helpers.
        home: the user's home directory, for `.docker/config.json` (see `docker_config`).
        docker_config: directory of docker's config.json.
        proxies: proxy settings by lower-case variable name (`http_proxy`, `https_proxy`, `no_proxy`, ...).
        ca_file: bundle this host trusts, "" for the system's own.
        runtime: name or path of the OCI runtime, "" to choose.
        cache_variables: variables that say how caches elsewhere are reached; they hold secrets.
        config_files: where the configuration may lie; the first that is there counts.
        config_is_named: the user named it, so that it must be there.
        cert_dirs: directories with a directory of certificates for each host, as docker has them.
        userns: whether the process runs in a user namespace entered for an ordinary user.
        gc: what is kept on disk, and the ceiling that builds keep to.
        registries: how registries are reached, where that was read from a daemon's configuration; its paths are
            relative to `registries_base`.
        history: how much of the records of builds is kept.
        tracer: where traces of builds go, None for nowhere but their records.
        registry_connections: transfers at once with one registry in one build, 0 for the default.
    """

    root: Path
    search_path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    home: Path = Path("/root")
    docker_config: Path | None = None
    proxies: dict[str, str] = field(default_factory=dict)
    ca_file: str = ""
    runtime: str = ""
    userns: bool = False
    config_files: tuple[Path, ...] = ()
    config_is_named: bool = False
    cert_dirs: tuple[Path, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    registry_mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cache_variables: dict[str, str] = field(default_factory=dict, repr=False)
    gc: Policies = field(default_factory=Policies)
    registries: Mapping[str, RegistryConfig] | None = None
    registries_base: Path = field(default_factory=Path)
    history: Keeping = field(default_factory=Keeping)
    tracer: Tracer | None = None
    registry_connections: int = 0


@dataclass(slots=True)
class BuildOptions:
    """One build, in docker's and buildx's terms.

    Attributes:
        context: the build context's directory, "" when there is none (Dockerfile alone on stdin).
        dockerfile: bytes of the Dockerfile; `dockerfile_name` is how messages name it.
        ignore: bytes of the ignore file, None when there is none; `ignore_name` likewise.
        tags: names for the result, as the user wrote them.
        outputs: `--output` values as given; empty means the image store.
        no_cache_filter: stages whose steps are run again.
        pull: ask the registry even when the tag is in the store.
        jobs: how many steps may run at once, 0 for the default.
        ca: "host" when steps shall trust what the host trusts, "" otherwise.
        allow: entitlements granted to steps (`security.insecure`, `network.host`, `device`,
            `device=NAME[,alias=OTHER]`).
        cdi_dirs: directories with CDI files, [] for the usual ones.
        cgroup_parent: control group in which those of steps are made, "" for the build's own.
        build_contexts: name to source, as `--build-context` gives them.
        source_date_epoch: seconds, or None; clamps what the build itself stamps.
        exact_modes: modes of context files count in cache keys as they are, and not as git has them.
        counted_secrets: ids of secrets that count in cache keys, by a fingerprint nobody can test without its key.
        secret_key: file with that key, for machines that share a cache; "" for the state directory's own.
        origin: what the user named when the context was brought here from elsewhere, "" for a directory.
        attests: attestations by type (`provenance`, `sbom`) with their options, as `--attest` has them.
        origin_materials: (kind, where, digest) of what it was brought from, for provenance.
        vcs: what version control says of the context (`revision`, `source`, ...), for provenance.
        source_policies: name and text of files that say which sources may be used.
        expect_cached: steps (a part of their names) that must be in the cache, "" for all: a miss fails the build
            before the step runs.
    """

    context: str = ""
    dockerfile: bytes = b""
    dockerfile_name: str = "Dockerfile"
    ignore: bytes | None = None
    ignore_name: str = ".dockerignore"
    tags: list[str] = field(default_factory=list)
    target: str = ""
    build_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    platforms: list[str] = field(default_factory=list)
    pull: bool = False
    no_cache: bool = False
    no_cache_filter: list[str] = field(default_factory=list)
    network: str = ""
    add_hosts: list[str] = field(default_factory=list)
    shm_size: int = 0
    ulimits: list[str] = field(default_factory=list)
    hostname: str = ""
    outputs: list[str] = field(default_factory=list)
    push: bool = False
    load: bool = False
    jobs: int = 0
    build_contexts: dict[str, str] = field(default_factory=dict)
    cache_from: list[str] = field(default_factory=list)
    cache_to: list[str] = field(default_factory=list)
    ca: str = ""
    allow: list[str] = field(default_factory=list)
    cdi_dirs: list[str] = field(default_factory=list)
    cgroup_parent: str = ""
    source_date_epoch: int | None = None
    exact_modes: bool = False
    counted_secrets: list[str] = field(default_factory=list)
    secret_key: str = ""
    origin: str = ""
    origin_materials: list[tuple[str, str, str]] = field(default_factory=list)
    expect_cached: list[str] = field(default_factory=list)
    attests: dict[str, str] = field(default_factory=dict)
    vcs: dict[str, str] = field(default_factory=dict)
    source_policies: list[tuple[str, str]] = field(default_factory=list)

    def switch(self, name: str) -> bool | None:
        """Return a build argument that is on or off, None when it is not given or empty.

        Raises:
            InputError: it is neither.
        """
        text = self.build_args.get(name, "")
        if text not in ("", *_ON, *_OFF):
            raise InputError(f"--build-arg {name}={text!r} is neither true nor false", hint=f"write {name}=1")
        return text in _ON if text else None


@dataclass(frozen=True, slots=True)
class Timing:
    """How one vertex went: seconds of wall time, and whether its result came from the cache."""

    name: str
    seconds: float
    cached: bool


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build produced.

    Attributes:
        digest: digest of the image's manifest (or index), "" when no image was made.
        config_digest: the image ID.
        config: the image's config as JSON object.
        names: full references the image was stored or pushed under.
        metadata: what `--metadata-file` holds (`containerimage.digest`, ...).
        timings: every vertex in the order it completed.
        warnings: frontend warnings as text.
        build: id of the record it left (`lamina history show ID`).
        explanations: why each step that ran was not found in the cache, in the order they began.
    """

    digest: str = ""
    config_digest: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    timings: tuple[Timing, ...] = ()
    warnings: tuple[str, ...] = ()
    build: str = ""
    explanations: tuple[Explanation, ...] = ()

    @property
    def cached(self) -> int:
        """How many vertices came from the cache."""
        return sum(1 for timing in self.timings if timing.cached)
