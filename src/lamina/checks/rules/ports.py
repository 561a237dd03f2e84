"""Rules about EXPOSE."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lamina.checks.edits import LineEdits, word
from lamina.checks.values import Fix, Hit, rule
from lamina.checks.view import View
from lamina.dockerfile.instructions import Expose, Instruction


@rule("ExposeProtoCasing", "The protocol of EXPOSE should be in lower case", buildkit=True)
def expose_proto_casing(view: View) -> Iterator[Hit]:
    """The protocol is stored in lower case; written so, a search for `80/tcp` finds it."""
    for step in view.steps(Expose):
        for port in step.values:
            protocol = port.rpartition(":")[2].partition("/")[2]
            if protocol != protocol.lower():
                yield Hit(
                    f"the protocol in '{port}' is not in lower case: write {protocol.lower()}",
                    step.item.source,
                    fix=_rewrite(view, step.item, _lower_protocol, "write the protocols in lower case"),
                )


@rule("ExposeInvalidFormat", "EXPOSE should name ports of the container only", buildkit=True)
def expose_invalid_format(view: View) -> Iterator[Hit]:
    """Addresses and ports of the host are said when a container is run; here they are dropped without a word."""
    for step in view.steps(Expose):
        for port in step.values:
            if ":" in port:
                yield Hit(
                    f"'{port}' has an address or a port of the host, which EXPOSE ignores: write {_inside(port)}",
                    step.item.source,
                    fix=_rewrite(view, step.item, _inside, "name the ports of the container only"),
                )


def _inside(port: str) -> str:
    """Return what EXPOSE takes of `[ADDRESS:][HOST:]PORT`."""
    return port.rpartition(":")[2]


def _lower_protocol(port: str) -> str:
    """Return a port with its protocol in lower case."""
    number, slash, protocol = port.partition("/")
    return number + slash + protocol.lower()


def _rewrite(view: View, item: Instruction, change: Callable[[str], str], description: str) -> Fix | None:
    """Return the fix that rewrites every port of an EXPOSE.

    None where one has variables or quotes, and where history would name the ports in another order.
    """
    assert isinstance(item, Expose)
    if [change(port) for port in sorted(item.ports)] != sorted(map(change, item.ports)):
        return None
    changed = LineEdits(view)
    for port in dict.fromkeys(item.ports):
        if set(port) & set("$'\"\\`{}"):
            return None
        if change(port) != port and not changed.replace(item, word(port), change(port)):
            return None
    return Fix(description, changed.edits())
