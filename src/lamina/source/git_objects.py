"""The objects that a git ref stands for, as git keeps them: for who verifies their signatures. Pure values.

`GitSource.objects` reads them; `git cat-file` gives their bytes, which have the hash that they are known by once the
header that git puts before them is counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class GitObjects:
    """A commit, and the annotated tag that led to it.

    Attributes:
        commit: the commit's hash.
        commit_object: its bytes.
        tag_object: bytes of the tag, b"" where the ref stands for the commit itself.
    """

    commit: str
    commit_object: bytes = field(repr=False)
    tag_object: bytes = field(default=b"", repr=False)
