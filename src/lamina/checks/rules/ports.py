"""Rules about EXPOSE."""

from __future__ import annotations

from collections.abc import Iterator

from lamina.checks.values import Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Expose


@rule("ExposeProtoCasing", "The protocol of EXPOSE should be in lower case", buildkit=True)
def expose_proto_casing(view: View) -> Iterator[Hit]:
    """The protocol is stored in lower case; written so, a search for `80/tcp` finds it."""
    for step in view.steps(Expose):
        for word in step.values:
            protocol = word.rpartition(":")[2].partition("/")[2]
            if protocol != protocol.lower():
                yield Hit(f"the protocol in '{word}' is not in lower case: write {protocol.lower()}", step.item.source)


@rule("ExposeInvalidFormat", "EXPOSE should name ports of the container only", buildkit=True)
def expose_invalid_format(view: View) -> Iterator[Hit]:
    """Addresses and ports of the host are said when a container is run; here they are dropped without a word."""
    for step in view.steps(Expose):
        for word in step.values:
            if ":" in word:
                port = word.rpartition(":")[2]
                yield Hit(
                    f"'{word}' has an address or a port of the host, which EXPOSE ignores: write {port}",
                    step.item.source,
                )
