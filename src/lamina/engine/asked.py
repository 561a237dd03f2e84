"""A build's options as BuildKit's frontends name them, for provenance: whoever reads it knows those names. Pure."""

from __future__ import annotations

from lamina.attest.capture import Material
from lamina.attest.predicate import Invocation
from lamina.engine.options import BuildOptions

FRONTEND = "dockerfile.v0"


def invocation_of(options: BuildOptions) -> Invocation:
    """Return what a frontend was asked, in its terms; what stands for its default is left out.

    Paths of this machine are none of it: a context that is a directory is `local:NAME`.
    """
    args = {f"build-arg:{name}": value for name, value in options.build_args.items()}
    args |= {f"label:{name}": value for name, value in options.labels.items()}
    args |= {f"vcs:{name}": value for name, value in options.vcs.items()}
    for name, source in options.build_contexts.items():
        args[f"context:{name}"] = source if "://" in source and not _is_path(source) else f"local:{name}"
    single = {
        "target": options.target,
        "filename": options.dockerfile_name if options.dockerfile_name != "Dockerfile" else "",
        "context": options.origin,
        "force-network-mode": options.network,
        "hostname": options.hostname,
        "shm-size": str(options.shm_size or ""),
        "ulimit": ",".join(options.ulimits),
        "add-hosts": ",".join(options.add_hosts),
        "no-cache": ",".join(options.no_cache_filter),
    }
    args |= {name: value for name, value in single.items() if value}
    if options.no_cache:
        args["no-cache"] = ""
    return Invocation(FRONTEND, args)


def read_beside(options: BuildOptions) -> list[Material]:
    """Return what is read beside the graph: what the context was brought from, or the user's own Dockerfile."""
    if options.origin:
        return [Material(*row) for row in options.origin_materials]
    return [Material("local", "dockerfile")]


def _is_path(source: str) -> bool:
    return source.startswith("oci-layout://")
