"""How much of the records of builds stays. A value; imports nothing."""

from __future__ import annotations

from dataclasses import dataclass

MAX_BUILDS = 1000
"""Builds whose steps are kept; the oldest go first."""
MAX_LOG_BYTES = 256 << 20
"""Bytes of all logs and definitions; those of the oldest builds go first, with their records. The newest build's
stay in any case."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """How much of the records stays when a build ends; the oldest go first.

    Attributes:
        builds: builds whose steps are kept.
        age_s: seconds after which a record goes, 0.0 for never.
        log_bytes: bytes of all logs and definitions.
    """

    builds: int = MAX_BUILDS
    age_s: float = 0.0
    log_bytes: int = MAX_LOG_BYTES
