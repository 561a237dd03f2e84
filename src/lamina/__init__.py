"""Lamina builds container images from Dockerfiles, without a daemon.

    import lamina
    result = lamina.build("path/to/context", tags=["app:1"])
    print(result.digest, [t.name for t in result.timings if not t.cached])

    from lamina import llb
    base = llb.image("debian:12")
    lamina.solve(base.run("apt-get update").marshal(), output="type=oci,dest=out.tar")

    for told in result.explanations:  # why each step that ran was not in the cache
        print(told.step, told.sentence)

`build`, `solve` and `why` live in `lamina.engine.library`; nothing heavy is imported before they are used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.cache.changes import Explanation as Explanation
    from lamina.engine.library import build as build
    from lamina.engine.library import solve as solve
    from lamina.engine.library import why as why
    from lamina.engine.options import BuildResult as BuildResult

__version__ = "0.1.0"
__all__ = ["BuildResult", "Explanation", "__version__", "build", "solve", "why"]

_WHERE = {
    "build": "engine.library",
    "solve": "engine.library",
    "why": "engine.library",
    "BuildResult": "engine.options",
    "Explanation": "cache.changes",
}


def __getattr__(name: str) -> object:
    """Import the public names when they are first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"lamina.{_WHERE[name]}"), name)
    globals()[name] = found
    return found
