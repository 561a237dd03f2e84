"""What goes, in which order: decided on an inventory, before anything is touched. Pure.

The unit is a layer that no other layer stands on (a leaf), together with the cache records whose results it is: when it
goes, the layers below that nothing else needs go along, and the next ones become leaves. So children go before
parents. A parent that must stay need not keep two forms: where its blob is here, its tree may go alone.

Invariants (property-tested):
* nothing that a live build relied on, and no blob that an image needs, is ever in a plan;
* no record loses its result unless bytes become free by it;
* a limit is reached, or `pinned` lists what keeps the rest: all bytes that stay.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lamina.engine.upkeep.inventory import FolderFact, Inventory, LayerFact, NodeFact
from lamina.engine.upkeep.listing import Links, blob_record, folder_record, layer_record, one_line
from lamina.engine.upkeep.policy import Disk, Rule
from lamina.engine.upkeep.records import CACHE_MOUNT, GIT
from lamina.engine.upkeep.worth import download_s, unpack_s, worth

LAYER, TREE, BLOB, MOUNT, REPOSITORY = "layer", "tree", "blob", "cache mount", "git repository"
_WORTHLESS = float("-inf")


@dataclass(frozen=True, slots=True)
class Removal:
    """One thing that goes.

    Attributes:
        kind: "layer" (the row with all its forms that nothing else has), "tree" (just that form), "blob",
            "cache mount", "git repository".
        name: row id, digest or directory name.
        bytes: what becomes free by it.
        nodes: cache records that lose their results just before.
        rule: why, by the name of the rule.
    """

    kind: str
    name: str
    description: str
    bytes: int
    nodes: tuple[int, ...]
    rule: str


@dataclass(frozen=True, slots=True)
class LostHit:
    """A step that a later build would have found in the cache; `seconds` is what it took to run."""

    node: int
    description: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Pin:
    """Something that stays, and why."""

    kind: str
    name: str
    reason: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """The outcome.

    Attributes:
        answers: what is remembered of whole builds and of context files goes, too.
        bound: nothing used since then (seconds since the epoch) is touched.
        wanted_bytes: the smallest limit that was to be reached, None when there was none.
        left_bytes: what the store then takes.
    """

    removals: tuple[Removal, ...]
    lost: tuple[LostHit, ...]
    pinned: tuple[Pin, ...]
    answers: bool
    bound: float
    wanted_bytes: int | None
    left_bytes: int

    @property
    def freed_bytes(self) -> int:
        """How many bytes become free."""
        return sum(removal.bytes for removal in self.removals)

    @property
    def reached(self) -> bool:
        """Whether the limit is kept."""
        return self.wanted_bytes is None or self.left_bytes <= self.wanted_bytes


def plan_rules(inventory: Inventory, rules: Sequence[Rule]) -> Plan:
    """Return what the rules remove, one after the other."""
    planner = _Planner(inventory)
    wanted: int | None = None
    answers = False
    for rule in rules:
        disk = Disk(inventory.disk.total_bytes, inventory.disk.free_bytes + planner.freed)
        keep = rule.keep_bytes(planner.used, disk)
        planner.apply(rule, keep)
        partial = bool(rule.filters or rule.keep_s)
        answers |= rule.all and keep is None and not partial
        if keep is not None and (len(rules) == 1 or not partial):
            wanted = keep if wanted is None else min(wanted, keep)
    return planner.plan(wanted, answers=answers)


def plan_limit(inventory: Inventory, keep_bytes: int, name: str) -> Plan:
    """Return what goes so that the store takes no more than `keep_bytes`."""
    planner = _Planner(inventory)
    rule = Rule(name, all=True)
    planner.apply(rule, max(keep_bytes, 0))
    return planner.plan(max(keep_bytes, 0), answers=False)


@dataclass(slots=True)
class _Planner:
    """The store as it would be after what is planned so far."""

    inventory: Inventory
    links: Links = field(init=False)
    children: Counter[int] = field(init=False)
    blob_users: Counter[str] = field(init=False)
    gone: set[tuple[str, str]] = field(default_factory=set)
    named_folders: dict[tuple[str, str], FolderFact] = field(init=False)
    treeless: set[int] = field(default_factory=set)
    lost_nodes: dict[int, NodeFact] = field(default_factory=dict)
    removals: list[Removal] = field(default_factory=list)
    freed: int = 0
    used: int = field(init=False)

    def __post_init__(self) -> None:
        self.links = Links(self.inventory)
        self.children = Counter({layer: len(above) for layer, above in self.links.children.items()})
        self.blob_users = Counter({blob: len(layers) for blob, layers in self.links.blob_users.items()})
        self.named_folders = {(MOUNT, mount.name): mount for mount in self.inventory.mounts}
        self.named_folders |= {(REPOSITORY, one.name): one for one in self.inventory.repositories}
        self.used = self.inventory.used_bytes

    # -- what may go

    def holders(self, layer: int) -> list[NodeFact]:
        """Return the records that still have this layer as a result."""
        return [node for node in self.links.holders.get(layer, ()) if node.id not in self.lost_nodes]

    def may_drop(self, layer: LayerFact, rule: Rule, *, form: bool = False) -> bool:
        """Tell whether the rule lets a layer go, or just one of its forms."""
        if layer.used >= self.inventory.live:
            return False
        holders = self.holders(layer.id)
        if not form and holders and (rule.unneeded_only or any(node.used >= self.inventory.live for node in holders)):
            return False
        if not (rule.keep_s or rule.filters):
            return True
        record = layer_record(self.inventory, self.links, layer)
        if holders and not form:  # a layer is stamped with what stands on it; its own steps say when it was wanted
            record = replace(record, used=max(node.used for node in holders))
        return rule.matches(record, self.inventory.now)

    def blob_free(self, layer: LayerFact) -> bool:
        """Tell whether a layer's blob goes with it."""
        return bool(layer.blob) and self.blob_users[layer.blob] == 1 and self.blob_loose(layer.blob)

    def blob_loose(self, digest: str) -> bool:
        """Tell whether no image and no live build needs a blob."""
        return digest not in self.inventory.images and self.inventory.blobs[digest].used < self.inventory.live

    def own_bytes(self, layer: LayerFact) -> int:
        """Return what becomes free when the layer goes."""
        tree = 0 if layer.id in self.treeless else layer.tree_bytes
        return tree + layer.index_bytes + (layer.blob_bytes if self.blob_free(layer) else 0)

    def gain(self, leaf: LayerFact, rule: Rule) -> tuple[int, int]:
        """Return what a leaf and all that then nothing needs would free, and how much of that would be fetched."""
        total = remote = 0
        layer: LayerFact | None = leaf
        while layer is not None:
            size = self.own_bytes(layer)
            total, remote = total + size, remote + (layer.blob_bytes if layer.remote and self.blob_free(layer) else 0)
            below = self.inventory.layers.get(layer.parent) if layer.parent is not None else None
            falls = below is not None and self.children[below.id] == 1 and not self.holders(below.id)
            layer = below if falls and below is not None and self.may_drop(below, rule) else None
        return total, remote

    # -- doing it on paper

    def apply(self, rule: Rule, keep: int | None) -> None:
        """Plan one rule: down to `keep` bytes, or all it means."""
        if keep is not None and self.used <= keep:
            return
        heap: list[tuple[float, int, str, str]] = []
        serial = 0

        def push(kind: str, name: str, value: float) -> None:
            nonlocal serial
            serial += 1
            heapq.heappush(heap, (value, serial, kind, name))

        def push_leaf(layer: LayerFact) -> None:
            if (
                self.children[layer.id] == 0
                and ("layer", str(layer.id)) not in self.gone
                and self.may_drop(layer, rule)
            ):
                push(LAYER, str(layer.id), self.leaf_worth(layer, rule))

        for layer in self.inventory.layers.values():
            push_leaf(layer)
            if keep is not None and not rule.unneeded_only and self.tree_may_go(layer, rule):
                push(TREE, str(layer.id), self.tree_worth(layer))
        for blob in self.inventory.blobs.values():
            if self.blob_may_go(blob.digest, rule, keep):
                push(BLOB, blob.digest, _WORTHLESS)
        for kind, folder in self.folders(rule):
            push(kind, folder.name, self.folder_worth(folder))
        while heap and (keep is None or self.used > keep):
            value, _serial, kind, name = heapq.heappop(heap)
            if kind == LAYER:
                layer = self.inventory.layers[int(name)]
                if ("layer", name) in self.gone or self.children[layer.id]:
                    continue
                now_worth = self.leaf_worth(layer, rule)
                if now_worth > value + 1e-9:  # its tree went meanwhile: less becomes free by it
                    push(LAYER, name, now_worth)
                    continue
                if keep is not None and self.holders(layer.id) and not self.gain(layer, rule)[0]:
                    continue
                if (below := self.drop_leaf(layer, rule)) is not None:
                    push_leaf(below)
            elif kind == TREE:
                self.drop_tree(self.inventory.layers[int(name)], rule)
            else:
                self.drop_other(kind, name, rule)

    def leaf_worth(self, layer: LayerFact, rule: Rule) -> float:
        """Return the worth of a leaf with what goes along; nothing for one without a result."""
        holders = self.holders(layer.id)
        if not holders:
            return _WORTHLESS
        size, remote = self.gain(layer, rule)
        cost = sum(node.seconds for node in holders) + download_s(remote)
        age = self.inventory.now - max(node.used for node in holders)
        return worth(cost, sum(node.uses for node in holders), age, size)

    def tree_may_go(self, layer: LayerFact, rule: Rule) -> bool:
        """Tell whether a layer's tree may go while the layer stays."""
        return (
            layer.has_tree
            and bool(layer.blob)
            and layer.id not in self.treeless
            and self.may_drop(layer, rule, form=True)
        )

    def tree_worth(self, layer: LayerFact) -> float:
        """Return the worth of a tree whose blob is here."""
        uses = sum(node.uses for node in self.holders(layer.id))
        return worth(unpack_s(layer.tree_bytes), uses, self.inventory.now - layer.used, layer.tree_bytes)

    def blob_may_go(self, digest: str, rule: Rule, keep: int | None) -> bool:
        """Tell whether a blob that is no layer's may go."""
        if self.blob_users[digest] or ("blob", digest) in self.gone or not self.blob_loose(digest):
            return False
        if digest in self.inventory.bases and (keep is not None or rule.filters or not rule.all):
            return False
        return rule.matches(blob_record(self.inventory, digest), self.inventory.now)

    def folders(self, rule: Rule) -> list[tuple[str, FolderFact]]:
        """Return the cache mounts and repositories that the rule lets go."""
        if rule.unneeded_only:
            return []
        found = [(MOUNT, CACHE_MOUNT, mount) for mount in self.inventory.mounts]
        found += [(REPOSITORY, GIT, repository) for repository in self.inventory.repositories]
        return [
            (kind, folder)
            for kind, type_, folder in found
            if folder.used < self.inventory.live
            and (kind, folder.name) not in self.gone
            and rule.matches(folder_record(self.inventory, folder, type_), self.inventory.now)
        ]

    def folder_worth(self, folder: FolderFact) -> float:
        """Return the worth of a cache mount or a repository: what it holds was downloaded."""
        return worth(download_s(folder.bytes), folder.uses, self.inventory.now - folder.used, folder.bytes)

    def drop_leaf(self, leaf: LayerFact, rule: Rule) -> LayerFact | None:
        """Plan a leaf and what then nothing needs; return the layer that then may be a leaf."""
        layer = leaf
        while True:
            holders = self.holders(layer.id)
            size = self.own_bytes(layer)
            if layer.blob:
                self.blob_users[layer.blob] -= 1
                if self.blob_users[layer.blob] == 0 and self.blob_loose(layer.blob):
                    self.gone.add((BLOB, layer.blob))
            for node in holders:
                self.lost_nodes[node.id] = node
            self._note(LAYER, str(layer.id), layer.description, size, tuple(node.id for node in holders), rule)
            below = self.inventory.layers.get(layer.parent) if layer.parent is not None else None
            if below is None:
                return None
            self.children[below.id] -= 1
            if self.children[below.id] or self.holders(below.id) or not self.may_drop(below, rule):
                return below
            layer = below

    def drop_tree(self, layer: LayerFact, rule: Rule) -> None:
        """Plan to keep a layer by its blob alone."""
        if (LAYER, str(layer.id)) not in self.gone and (BLOB, layer.blob) not in self.gone:
            self.treeless.add(layer.id)
            self._note(TREE, str(layer.id), layer.description, layer.tree_bytes, (), rule)

    def drop_other(self, kind: str, name: str, rule: Rule) -> None:
        """Plan a blob, a cache mount or a repository."""
        if kind == BLOB:
            self._note(kind, name, "", self.inventory.blobs[name].bytes, (), rule)
            return
        folder = self.named_folders[kind, name]
        self._note(kind, name, folder.label, folder.bytes, (), rule)

    def _note(self, kind: str, name: str, description: str, size: int, nodes: tuple[int, ...], rule: Rule) -> None:
        self.gone.add((kind, name))
        self.removals.append(Removal(kind, name, description, size, nodes, rule.name))
        self.freed += size
        self.used -= size

    # -- the outcome

    def plan(self, wanted: int | None, *, answers: bool) -> Plan:
        """Return what was planned."""
        lost = [LostHit(node.id, node.description, node.seconds) for node in self.lost_nodes.values()]
        pinned = [] if wanted is None or self.used <= wanted else self.pins()
        return Plan(tuple(self.removals), tuple(lost), tuple(pinned), answers, self.inventory.live, wanted, self.used)

    def pins(self) -> list[Pin]:
        """Return everything that stays, biggest first; the bytes add up to all that the store then takes."""
        inventory, found = self.inventory, []
        counted: set[str] = set()
        for layer in inventory.layers.values():
            if (LAYER, str(layer.id)) in self.gone:
                continue
            size = layer.index_bytes + (0 if layer.id in self.treeless else layer.tree_bytes)
            if layer.blob and layer.blob not in counted:
                counted.add(layer.blob)
                size += layer.blob_bytes
            found.append(Pin(LAYER, str(layer.id), self.layer_reason(layer), size))
        for digest, blob in inventory.blobs.items():
            if digest not in counted and (BLOB, digest) not in self.gone:
                record = blob_record(inventory, digest)
                found.append(Pin(BLOB, digest, record.reason, blob.bytes))
        for kind, type_, folders in (
            (MOUNT, CACHE_MOUNT, inventory.mounts),
            (REPOSITORY, GIT, inventory.repositories),
        ):
            for folder in folders:
                if (kind, folder.name) not in self.gone:
                    found.append(Pin(kind, folder.name, folder_record(inventory, folder, type_).reason, folder.bytes))
        if (history := inventory.history) is not None:
            found.append(Pin("history", history.name, "history of builds", history.bytes))
        return sorted((pin for pin in found if pin.bytes), key=lambda pin: (-pin.bytes, pin.kind, pin.name))

    def layer_reason(self, layer: LayerFact) -> str:
        """Return why a layer stays."""
        if layer.used >= self.inventory.live:
            return "a live build relies on it"
        if above := self.children[layer.id]:
            return f"below {above} other layer{'' if above == 1 else 's'} that stay{'s' if above == 1 else ''}"
        if layer.blob in self.inventory.images:
            return f"image {self.inventory.images[layer.blob][0]}"
        if holders := self.holders(layer.id):
            return f'kept by the rule: cache of step "{one_line(holders[0].description)}"'
        return "kept by the rule"
