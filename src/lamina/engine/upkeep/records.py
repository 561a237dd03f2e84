"""One thing on disk as `du` shows it, in BuildKit's terms where it has some. Pure values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

REGULAR, LOCAL, GIT, CACHE_MOUNT, FRONTEND, INTERNAL = (
    "regular",
    "source.local",
    "source.git.checkout",
    "exec.cachemount",
    "frontend",
    "internal",
)
TYPES = (REGULAR, LOCAL, GIT, CACHE_MOUNT, FRONTEND, INTERNAL)
"""BuildKit's types of records. `frontend` is known and never used: front ends are part of the program."""


@dataclass(frozen=True, slots=True)
class Record:
    """One thing on disk.

    Attributes:
        kind: "layer", "cache mount", "git repository", "blob" or "history".
        type: one of `TYPES`.
        name: id or digest; what `--why` and `--filter id=` take.
        size_bytes: all its forms.
        shared_bytes: of these, what stays when just this thing goes, because another or an image has it too.
        tree_bytes: its unpacked files; `blob_bytes` its packed form; `index_bytes` the table of its entries.
        created: seconds since the epoch; `used` when it was last relied on; `uses` how often, as far as counted.
        in_use: a live build relies on it.
        mutable: it changes in place (cache mounts, repositories).
        parents: names of the layers directly below.
        reasons: why it is kept, the strongest first; empty when the next prune takes it.
    """

    kind: str
    type: str
    name: str
    description: str
    size_bytes: int
    shared_bytes: int
    tree_bytes: int
    blob_bytes: int
    index_bytes: int
    created: float
    used: float
    uses: int
    in_use: bool
    mutable: bool
    parents: tuple[str, ...]
    reasons: tuple[str, ...]

    @property
    def private_bytes(self) -> int:
        """Bytes that are free again when just this thing goes."""
        return self.size_bytes - self.shared_bytes

    @property
    def shared(self) -> bool:
        """Whether some of its bytes belong to something else, too."""
        return self.shared_bytes > 0

    @property
    def reason(self) -> str:
        """The strongest reason why it is kept."""
        return self.reasons[0] if self.reasons else "nothing needs it"

    def to_json(self) -> dict[str, Any]:
        """Return the record as a JSON object."""
        return {**asdict(self), "private_bytes": self.private_bytes, "shared": self.shared, "reason": self.reason}


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a whole store; every byte counts once, however many things share it.

    Attributes:
        reclaimable_bytes: what `prune --all` would free now.
    """

    total_bytes: int
    shared_bytes: int
    private_bytes: int
    reclaimable_bytes: int
