"""Where this process sends traces: OpenTelemetry's variables of the environment (lamina.tracing.settings).

Nothing is imported while none of them is set. What is wrong with them is told in one warning, and costs the traces
only: they are often set for all programs of a pipeline.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

from lamina.cli.environment import is_traced, proxies

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lamina.tracing.tracer import Tracer


@contextmanager
def tracing(warn: Callable[[str], None] | None = None) -> Iterator[Tracer | None]:
    """Give what sends traces for as long as the block lasts; None where they go nowhere.

    Leaving waits for the collector, but not for long.

    Args:
        warn: is told what goes wrong; by default standard error is.
    """
    tracer = _open(warn or _warn) if is_traced() else None
    try:
        yield tracer
    finally:
        if tracer is not None:
            tracer.close()


def _open(warn: Callable[[str], None]) -> Tracer | None:
    from lamina.errors import InputError
    from lamina.tracing.settings import parse_settings

    try:
        settings = parse_settings(os.environ)
    except InputError as error:
        warn(f"no traces are sent: {error}" + (f" ({error.hint})" if error.hint else ""))
        return None
    if settings is None:
        return None
    from lamina.registry.options import Proxies
    from lamina.tracing.tracer import Tracer

    found = proxies()
    via = Proxies(found.get("http_proxy", ""), found.get("https_proxy", ""), found.get("no_proxy", ""))
    return Tracer(settings, warn, via)


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
