"""Images with attestations, looked at as somebody else would: layouts in archives."""

from __future__ import annotations

import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Attested:
    """One image of an archive and what is said of it.

    Attributes:
        index: the image's index; `image`: its first manifest's descriptor.
        descriptor, manifest: of the attestations.
        statements: by predicate type.
    """

    index: dict[str, Any]
    image: dict[str, Any]
    descriptor: dict[str, Any]
    manifest: dict[str, Any]
    statements: dict[str, list[dict[str, Any]]]

    def statement(self, predicate_type: str) -> dict[str, Any]:
        """Return the only statement of a type."""
        (found,) = self.statements[predicate_type]
        return found


def read_attested(archive: Path, architecture: str = "amd64") -> Attested:
    """Return the image of an OCI archive with its attestations."""
    with tarfile.open(archive) as tar:

        def blob(digest: str) -> dict[str, Any]:
            file = tar.extractfile("blobs/" + digest.replace(":", "/"))
            assert file is not None
            found: dict[str, Any] = json.load(file)
            return found

        file = tar.extractfile("index.json")
        assert file is not None
        index = blob(json.load(file)["manifests"][0]["digest"])
        image = next(one for one in index["manifests"] if one["platform"]["architecture"] == architecture)
        descriptor = next(
            one
            for one in index["manifests"]
            if one.get("annotations", {}).get("vnd.docker.reference.digest") == image["digest"]
        )
        manifest = blob(descriptor["digest"])
        statements: dict[str, list[dict[str, Any]]] = {}
        for layer in manifest["layers"]:
            kind = layer["annotations"]["in-toto.io/predicate-type"]
            statements.setdefault(kind, []).append(blob(layer["digest"]))
        return Attested(index, image, descriptor, manifest, statements)
