"""`du --why`: the chain that leads from one thing to what keeps it. Pure.

Out: `Link`s, the thing first; each one is kept by the next, the last one stands for itself (an image, a cache record, a
live build) or says that nothing does.
"""

from __future__ import annotations

from dataclasses import dataclass

from lamina.engine.upkeep.inventory import Inventory
from lamina.engine.upkeep.listing import Links, list_records, one_line
from lamina.engine.upkeep.records import Record
from lamina.errors import InputError


@dataclass(frozen=True, slots=True)
class Link:
    """One part of a chain.

    Attributes:
        what: the thing, in words.
        mend: the command that takes this link away, "" where there is none.
    """

    what: str
    mend: str = ""


def find_record(records: list[Record], name: str) -> Record:
    """Return the record that a person names by its id or the beginning of its digest.

    Raises:
        InputError: none, or several.
    """
    exact = [record for record in records if name in (record.name, record.name.partition(":")[2])]
    near = [] if exact or len(name) < 4 else [r for r in records if r.kind != "layer" and _begins(r.name, name)]
    found = exact or near
    if not found:
        raise InputError(f"nothing on disk has the id {name!r}", hint="`lamina du` lists the ids")
    if len(found) > 1:
        raise InputError(f"{len(found)} things have ids that begin with {name!r}", hint="write more of it")
    return found[0]


def pinned_by(inventory: Inventory, name: str) -> list[Link]:
    """Return why the thing with this id is on disk.

    Raises:
        InputError: there is no such thing.
    """
    links = Links(inventory)
    record = find_record(list_records(inventory, links), name)
    if record.kind == "layer":
        return _layer_chain(inventory, links, int(record.name))
    first = Link(f"{record.kind} {record.name}{_told(record.description)}")
    if not record.reasons:
        return [first, Link("nothing needs it", "lamina prune")]
    ends = [Link(reason, _mend(record, reason)) for reason in record.reasons]
    return [first, *ends]


def _layer_chain(inventory: Inventory, links: Links, layer: int) -> list[Link]:
    """Walk up to the nearest layer that is kept for its own sake."""
    came_from: dict[int, int] = {}
    pending = [layer]
    found: int | None = None
    for current in pending:  # grows while it is walked: breadth first
        if _own_reasons(inventory, links, current):
            found = current
            break
        for child in links.children.get(current, ()):
            if child not in came_from:
                came_from[child] = current
                pending.append(child)
    path = [found if found is not None else layer]
    while path[-1] != layer:
        path.append(came_from[path[-1]])
    path.reverse()
    chain = [Link(_layer_text(inventory, path[0]))]
    chain += [Link(f"is below {_layer_text(inventory, above)}") for above in path[1:]]
    if found is None:
        return [*chain, Link("nothing needs it", "lamina prune")]
    return [*chain, *_own_reasons(inventory, links, found)]


def _own_reasons(inventory: Inventory, links: Links, layer: int) -> list[Link]:
    """Return what keeps a layer apart from the layers above it."""
    fact = inventory.layers[layer]
    found = [Link("a live build relies on it")] if fact.used >= inventory.live else []
    for name in inventory.images.get(fact.blob, ()) if fact.blob else ():
        found.append(Link(f"is part of image {name}", f"lamina rmi {name.partition(' ')[0]}"))
    for node in links.holders.get(layer, ()):
        days = (inventory.now - node.used) / 86_400
        text = f'is the result of step "{one_line(node.description)}", which took {node.seconds:.1f} s'
        mend = "" if links.children.get(layer) else f"lamina prune --filter id={layer}"
        found.append(Link(f"{text}, last used {days:.1f} days ago", mend))
    if found and (above := len(links.children.get(layer, ()))):
        found.append(Link(f"is below {above} other layer{'' if above == 1 else 's'}, which go first"))
    return found


def _layer_text(inventory: Inventory, layer: int) -> str:
    return f"layer {layer}{_told(inventory.layers[layer].description)}"


def _told(description: str) -> str:
    return f" ({one_line(description)})" if description else ""


def _mend(record: Record, reason: str) -> str:
    if reason.startswith("image "):
        return f"lamina rmi {reason.removeprefix('image ').partition(',')[0].partition(' ')[0]}"
    if reason == "a live build":
        return ""
    if record.kind == "history":
        return "lamina history rm"
    return f"lamina prune --all --filter id={record.name[:12] if record.kind != 'blob' else record.name}"


def _begins(name: str, text: str) -> bool:
    return name.startswith(text) or name.partition(":")[2].startswith(text)
