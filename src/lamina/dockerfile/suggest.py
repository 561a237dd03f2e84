"""Did you mean: the nearest known name, as a hint. Pure; imports its matcher only when something is wrong already."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(got: str, known: Iterable[str], *, otherwise: str = "") -> str:
    """Return `did you mean NAME?` for the known name nearest to `got`; `otherwise` when none is near."""
    import difflib

    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(got[:64].lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]}?" if near else otherwise
