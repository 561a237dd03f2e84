"""Places that keep caches, and builds that use them, for the tests of caches that travel."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lamina.cancel import Cancel
from lamina.store.store import Store
from support.azure import spec as azure_spec
from support.bases import busybox_context
from support.command import Lamina
from support.gha import TOKEN
from support.s3 import spec as s3_spec

DOCKERFILE = """\
FROM base AS build
WORKDIR /src
COPY app.txt .
RUN cat app.txt > /out.txt && dd if=/dev/urandom of=/junk bs=1M count=2
FROM base
RUN echo base > /base && head -c 8 /dev/urandom > /random
COPY --from=build /out.txt /out.txt
RUN echo done > /done
"""
RUNS = 3


@dataclass(frozen=True)
class Place:
    """Where a cache is kept. `empty` takes all layers of it away, as an expiry would."""

    to: str
    from_: str
    lose_layers: Callable[[], None]


KINDS = ("local", "registry", "registry-index", "s3", "azblob", "gha")


def open_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Return a place of the kind `request.param`, with a server of its own where it needs one."""
    if request.param == "local":
        folder = tmp_path / "cache"

        def lose_local() -> None:
            for blob in (folder / "blobs" / "sha256").iterdir():
                if (
                    blob.read_bytes()[:2] == b"\x1f\x8b"
                    and b"version" not in subprocess.run(["zcat", blob], capture_output=True, check=False).stdout[-200:]
                ):
                    blob.unlink()

        return Place(f"type=local,dest={folder}", f"type=local,src={folder}", lose_local)
    if request.param == "s3":
        spec = s3_spec(request.getfixturevalue("s3"))
        return Place(spec, spec, lambda: lose_objects(spec))
    if request.param == "azblob":
        spec = azure_spec(request.getfixturevalue("azure"))
        return Place(spec, spec, lambda: lose_objects(spec))
    if request.param == "gha":
        service = request.getfixturevalue("gha")
        spec = f"type=gha,url_v2={service.url}/,token={TOKEN}"
        return Place(spec, spec, service.evict)
    registry = request.getfixturevalue("registry")

    def lose_pushed() -> None:
        for data in (tmp_path / "registry" / "blobs").rglob("sha256/*/*/data"):
            if data.stat().st_size > 100_000:
                data.write_bytes(b"rotten")

    form = ",image-manifest=false" if request.param == "registry-index" else ""
    ref = f"type=registry,ref={registry}/app:cache"
    return Place(ref + form, ref, lose_pushed)


def lose_objects(text: str) -> None:
    """Remove the layers from a bucket or container."""
    from lamina.cache.backends.azblob import open_azblob
    from lamina.cache.backends.s3 import open_s3
    from lamina.cache.spec import parse_spec

    open_cache = open_s3 if "type=s3" in text else open_azblob
    cache = open_cache(parse_spec(text, export=True), {}, Cancel())
    for item in cache._store.list("blobs/"):
        if item.size > 100_000:
            cache._store.delete(item.name)
    cache.close()


def make_context(tmp_path: Path) -> Path:
    """Make a build context with `DOCKERFILE`."""
    folder = tmp_path / "ctx"
    folder.mkdir()
    busybox_context(folder, DOCKERFILE)
    (folder / "app.txt").write_text("one")
    return folder


def ran(output: str) -> list[str]:
    """Return the RUN commands that were carried out."""
    names = {line.split(" ", 1)[0]: line for line in output.splitlines() if " RUN " in line and line[0] == "#"}
    last = {line.split(" ", 1)[0]: line for line in output.splitlines() if line.endswith(" CACHED") or " DONE " in line}
    return [line for number, line in names.items() if not last[number].endswith(" CACHED")]


def digest(lamina: Lamina, name: str = "app") -> str:
    """Return the digest of an image in a machine's store."""
    found = next(i for i in Store(lamina.root / "oci").images() if i.name == f"docker.io/library/{name}:latest")
    return str(found.descriptor.digest)
