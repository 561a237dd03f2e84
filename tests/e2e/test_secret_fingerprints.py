"""L14: a secret counts in keys when the user says so; nothing that is kept or exported lets a guess be tested."""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import shutil
import zlib
from pathlib import Path

import pytest

import lamina as library
from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

DOCKERFILE = """\
FROM base AS other
RUN head -c 8 /dev/urandom | md5sum > /other
FROM base
COPY --from=other /other /
RUN --mount=type=secret,id=token test -e /run/secrets/token; head -c 8 /dev/urandom | md5sum > /one
RUN --mount=type=secret,id=token,env=TOKEN,required=false head -c 8 /dev/urandom | md5sum > /two
"""
FIRST, SECOND = b"hunter2-first-value", b"hunter2-second-value"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return busybox_context(tmp_path / "ctx", DOCKERFILE)


class Builds:
    """Builds of one context in one store; each gives which of the random files came out."""

    def __init__(self, folder: Path, context: Path, root: Path) -> None:
        self.folder, self.context, self.lamina = folder, context, Lamina(root)
        self.output = ""

    def __call__(self, secret: bytes | None, *words: str | Path, counts: str = ",fingerprint=true") -> dict[str, str]:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        given: list[str] = []
        if secret is not None:
            (self.folder / "token").write_bytes(secret)
            given = ["--secret", f"id=token,src={self.folder / 'token'}{counts}"]
        done = self.lamina.build(self.context, *given, "-o", f"type=local,dest={out}", *words)
        self.output += done.stdout + done.stderr
        return {name: (out / name).read_text() for name in ("other", "one", "two")}


@pytest.fixture
def build(tmp_path: Path, context: Path) -> Builds:
    return Builds(tmp_path, context, tmp_path / "store")


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    return [name for name in before if before[name] != after[name]]


def test_a_changed_secret_runs_its_steps_again(build: Builds):
    """L14: and no others; the old value leads back to the old results."""
    first = build(FIRST)
    assert changed(first, build(FIRST)) == []
    second = build(SECOND)
    assert changed(first, second) == ["one", "two"]
    assert changed(first, build(FIRST)) == []


def test_by_default_a_secret_never_counts(build: Builds):
    """L14: BuildKit's rule; `fingerprint=false` says the same."""
    first = build(FIRST, counts="")
    assert changed(first, build(SECOND, counts="")) == []
    assert changed(first, build(SECOND, counts=",fingerprint=false")) == []


def test_the_memo_of_whole_builds_does_not_hide_a_change(build: Builds):
    """L14: images in the store, where the fully cached way is taken."""
    ids = []
    for secret in (FIRST, FIRST, SECOND, FIRST):
        (build.folder / "token").write_bytes(secret)
        given = f"id=token,src={build.folder / 'token'},fingerprint=true"
        ids.append(build.lamina("build", "-q", "--secret", given, build.context).stdout)
    assert ids[0] == ids[1] == ids[3] != ids[2]


def test_stores_with_one_key_share_their_results(tmp_path: Path, context: Path, build: Builds):
    """L14: `--secret-key` on two machines and a cache between them; without it they never meet."""
    key, cache = tmp_path / "key", tmp_path / "cache"
    key.write_text("fedcba9876543210" * 4)
    for words in (["--secret-key", str(key)], []):
        shutil.rmtree(cache, ignore_errors=True)
        first = build(FIRST, "--cache-to", f"type=local,mode=max,dest={cache}", *words)
        other = Builds(tmp_path, context, tmp_path / f"other{len(words)}")
        given = ["--cache-from", f"type=local,src={cache}", *words]
        came = other(FIRST, *given)
        assert changed(first, came) == ([] if words else ["one", "two"])
        assert changed(came, other(SECOND, *given)) == ["one", "two"]


def test_the_library_counts_secrets_too(tmp_path: Path, context: Path):
    """L14: `counted_secrets` and `secret_key` of `lamina.build`."""

    def ran(value: bytes) -> set[str]:
        result = library.build(context, root=tmp_path / "store", secrets={"token": value}, counted_secrets=["token"])
        return {timing.name[:12] for timing in result.timings if not timing.cached and "RUN" in timing.name}

    assert len(ran(FIRST)) > 0
    assert ran(FIRST) == set()
    assert len(ran(SECOND)) > 0


def guesses(secret: bytes) -> list[bytes]:
    """The secret, and what anybody could make of a guess: hashes of it, alone and with its id, in all spellings."""
    found = [secret, base64.b64encode(secret), secret.hex().encode()]
    for text in (secret, b"token" + secret, b"token=" + secret, b"token\0" + secret, b"token:" + secret):
        for kind in ("md5", "sha1", "sha256", "sha512", "blake2b"):
            digest = hashlib.new(kind, text).digest()
            found += [digest, digest.hex().encode()[:16], base64.b64encode(digest)[:16]]
    return found


def readable(path: Path) -> bytes:
    """A file's bytes, and what is compressed in it."""
    data = path.read_bytes()
    try:
        return data + (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else b"")
    except (OSError, EOFError, zlib.error):
        return data


def test_nothing_that_is_kept_or_exported_lets_a_guess_be_tested(tmp_path: Path, build: Builds):
    """L14: state file, records, trees, blobs, exported cache and output hold neither secret nor key nor plain hash."""
    image, cache = tmp_path / "image.tar", tmp_path / "cache"
    build(FIRST, "--cache-to", f"type=local,mode=max,dest={cache}", "-o", f"type=oci,dest={image}")
    build(FIRST, counts="")
    key = (tmp_path / "store/secret.key").read_bytes()
    hidden = [*guesses(FIRST), key, key.hex().encode(), base64.b64encode(key)]
    kept = [path for path in (tmp_path / "store").rglob("*") if path.is_file() and not path.is_symlink()]
    exported = [image, *(path for path in cache.rglob("*") if path.is_file())]

    looked_at = 0
    for path in [*kept, *exported]:
        if path.name == "secret.key":
            continue
        data = readable(path)
        looked_at += 1
        assert not [text for text in hidden if text in data], path
    assert looked_at > 10
    assert not [text for text in hidden if text in build.output.encode()]
    assert (tmp_path / "store/secret.key").stat().st_mode & 0o777 == 0o600
