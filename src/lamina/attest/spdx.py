"""An SPDX document of the result learns which layer brought each file. Pure.

As BuildKit does: files without a comment get `layerID: DIGEST`; the tool is added to the creators. A document that is
not as SPDX 2 has it stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def with_layers(document: bytes, layer_of: Callable[[str], str | None], tool: str) -> bytes:
    """Return the document with layers told.

    Args:
        layer_of: returns the digest of the layer that a path without leading "/" lies in, None for none.
        tool: name and version of who adds this.
    """
    try:
        found: Any = json.loads(document)
        files = [*(found.get("files") or []), *(file for one in found.get("packages") or [] for file in _files(one))]
        for file in files:
            name = file.get("fileName")
            layer = layer_of(_normal(name)) if isinstance(name, str) and not file.get("comment") else None
            if layer is not None:
                file["comment"] = f"layerID: {layer}"
        found.setdefault("creationInfo", {}).setdefault("creators", []).append(f"Tool: {tool}")
    except (ValueError, AttributeError, TypeError, RecursionError):
        return document
    return json.dumps(found, ensure_ascii=False).encode()


def _files(package: Any) -> list[Any]:
    """Return the files inside a package, which some tools write there."""
    files = package.get("files")
    return files if isinstance(files, list) else []


def _normal(name: str) -> str:
    """Return a path as the layers have it."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)
