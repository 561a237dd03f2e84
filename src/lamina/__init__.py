"""Lamina builds container images from Dockerfiles, without a daemon.

    import lamina
    result = lamina.build("path/to/context", tags=["app:1"])
    print(result.digest, [t.name for t in result.timings if not t.cached])

    from lamina import llb
    base = llb.image("debian:12")
    lamina.solve(base.run("apt-get update").marshal(), output="type=oci,dest=out.tar")

`build` and `solve` live in `lamina.engine.library`; nothing heavy is imported before they are used.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.engine.library import build as build
    from lamina.engine.library import solve as solve
    from lamina.engine.options import BuildResult as BuildResult

__version__ = "0.1.0"
__all__ = ["BuildResult", "__version__", "build", "solve"]

_WHERE = {"build": "library", "solve": "library", "BuildResult": "options"}


def __getattr__(name: str) -> object:
    """Import the public names when they are first used."""
    if name not in _WHERE:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    from importlib import import_module

    found: object = getattr(import_module(f"lamina.engine.{_WHERE[name]}"), name)
    globals()[name] = found
    return found
