"""Issue "done when" 4: for random graphs and edits, with every kind of cache on, a build gives what one without gives.

Kinds of cache: the memo of whole builds, the stat cache, definition and exact keys, cache mounts, an exported cache. A
build without is one in an empty store with `--no-cache`. Times do not count. Modes that only tell of a checkout's umask
do not either (docs/cache.md): they are the first build's.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from lamina.cancel import Cancel
from lamina.engine import fast
from lamina.engine.build import build
from lamina.engine.library import PlainSession
from lamina.engine.options import BuildOptions, Environment
from lamina.errors import Error
from lamina.progress import discard
from support.bases import find_busybox
from support.image_tree import Tree, image_tree

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # trees come and go by the thousand
APPLETS = ("sh", "cat", "cp", "find", "ln", "ls", "md5sum", "mkdir", "mv", "rm", "sort", "touch")
NAMES = ("a", "b", "d", "d/c", "d/e", "g")
PLAIN, PROGRAM = "plain", "program"
CHOSEN = (0o444, 0o640, 0o711, 0o555, 0o4755)
"""Modes that no umask below leaves."""
UMASKS = (0o022, 0o002, 0o077)

paths = st.sampled_from(["/x", "/y", "/dir/x", "/dir/sub/y", "/into/a", "/bin/x"])
sources = st.sampled_from(
    ["a", "b", "d", ".", ".", "d/*", "a b", "[ab]", "--exclude=d/c d", "--chmod=640 d", "--chown=1:2 d"]
)
copies = st.one_of(
    st.builds("COPY {} /into/".format, sources),
    st.builds("COPY {} {}".format, st.sampled_from(["a", "d/c", "--chmod=u+x,go=r b", "--link a"]), paths),
    st.builds("ADD {} /added/".format, st.sampled_from(["a", "d"])),
)
commands = st.one_of(
    st.builds("RUN mkdir -p /dir && cat /into/* > {} 2>/dev/null; true".format, paths),
    st.builds("RUN rm -rf {}".format, paths),
    st.just("RUN L=$(find / -xdev -not -path '/proc*' -not -path '/sys*' -not -path '/dev*' | sort); echo $L > /list"),
    st.just("RUN find /into /added -type f -perm -u+x 2>/dev/null | sort > /programs; true"),
    st.builds("RUN cp -a /into {} 2>/dev/null; true".format, st.sampled_from(["/kept", "/kept2"])),
    st.builds("RUN mv /into {} 2>/dev/null; true".format, st.sampled_from(["/moved", "/moved2"])),
    st.builds("RUN ln -s /into/a {} 2>/dev/null; true".format, paths),
    st.just("RUN echo $WORD > /word"),
    st.builds("RUN --mount=type=bind,target=/src cp -r /src/d {} 2>/dev/null; true".format, st.just("/bound")),
    st.just("RUN --mount=type=bind,source=d,target=/src ls -R /src > /bound-list 2>/dev/null; true"),
    st.just("RUN --mount=type=cache,target=/c echo x >> /c/log; test -s /c/log && cat /into/a > /with-cache; true"),
    st.just("RUN --mount=type=tmpfs,target=/t cp -r /into /t; cat /t/into/a > /with-tmpfs; true"),
    st.just("RUN --mount=type=secret,id=s md5sum < /run/secrets/s > /secret; true"),
    st.builds("WORKDIR {}".format, st.sampled_from(["/dir", "/w"])),
    st.builds("ENV V={}".format, st.sampled_from(["1", "$WORD"])),
)
from_stage = st.one_of(
    st.builds("COPY --from={{}} {} /first/".format, st.sampled_from(["/into", "/into/", "/word", "/dir", "/into*"])),
    st.just("RUN --mount=type=bind,from={},target=/other cat /other/into/a > /from-other 2>/dev/null; true"),
    st.just("RUN --mount=type=bind,from={},source=/bin,target=/other ls /other > /programs-of-other; true"),
)
stages = st.lists(st.one_of(copies, copies, commands), min_size=1, max_size=4)


@st.composite
def dockerfiles(draw: st.DrawFn) -> str:
    """One to three stages, each on the base or on an earlier one, reading from earlier ones."""
    lines = ["FROM scratch AS s0", "COPY --from=rootfs . /", "ENV PATH=/bin"]
    for number in range(1, draw(st.integers(2, 4))):
        before = st.sampled_from([f"s{earlier}" for earlier in range(number)])
        below = draw(st.one_of(st.just(f"s{number - 1}"), before))  # what nothing stands on is not seen
        lines += [f"FROM {below} AS s{number}", "ARG WORD=none"]
        lines += draw(stages)
        for line in draw(st.lists(from_stage, max_size=2)):
            lines.append(line.format(draw(before)))
    return "\n".join(lines) + "\n"


edits = st.one_of(
    st.tuples(st.just("write"), st.sampled_from(NAMES), st.sampled_from("0123")),
    st.tuples(st.just("rewrite"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("chmod"), st.sampled_from(NAMES[:5]), st.sampled_from([PLAIN, PROGRAM, *CHOSEN])),
    st.tuples(st.just("chmod"), st.sampled_from(NAMES[:5]), st.sampled_from(CHOSEN)),
    st.tuples(st.just("rename"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("remove"), st.sampled_from(NAMES), st.just("")),
    st.tuples(st.just("link"), st.sampled_from(NAMES), st.sampled_from(["a", "d", "../d/c", "nowhere"])),
    st.tuples(st.just("hard link"), st.sampled_from(NAMES), st.sampled_from(NAMES)),
    st.tuples(st.just("umask"), st.just(""), st.sampled_from(UMASKS)),
    st.tuples(st.just("arg"), st.just(""), st.sampled_from(["one", "two"])),
    st.tuples(st.just("secret"), st.just(""), st.sampled_from(["one", "two"])),
)


EVERYTHING = """\
FROM scratch AS s0
COPY --from=rootfs . /
ENV PATH=/bin
FROM s0 AS s1
COPY . /all/
COPY a b d /into/
COPY --chmod=640 a /a
RUN --mount=type=bind,target=/src find /src -perm -u+x | sort > /programs
RUN --mount=type=cache,target=/c cat /into/* >> /c/log; cat /into/* > /content; true
FROM s1
ARG WORD=none
COPY --from=s1 /all/d /content /first/
RUN --mount=type=secret,id=s md5sum < /run/secrets/s > /secret && echo $WORD > /word
"""
ONE_BY_ONE = [
    [("umask", "", 0o002)],
    [("chmod", "a", 0o444)],
    [("chmod", "d/c", 0o4755)],
    [("chmod", "d", 0o711)],
    [("umask", "", 0o077)],
    [("chmod", "a", PLAIN)],
    [("chmod", "b", PROGRAM)],
    [("rewrite", "d/e", "")],
    [("write", "d/e", "1")],
    [("rename", "d/e", "d/f")],
    [("link", "g", "a")],
    [("hard link", "a", "b")],
    [("link", "g", "nowhere")],
    [("remove", "g", "")],
    [("arg", "", "one")],
    [("secret", "", "one")],
    [("secret", "", "none")],
    [("umask", "", 0o022)],
]
"""Each kind of edit alone, so that each has to be noticed."""


class World:
    """A context, and what a build is called with; `edit` changes it as people and checkouts do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.context = folder, folder / "context"
        self.umask, self.chosen = UMASKS[0], dict[str, int]()
        self.word, self.secret = "none", "none"
        self.stores = 0
        rootfs = folder / "rootfs"
        for name in ("bin", "proc", "sys", "dev"):
            (rootfs / name).mkdir(parents=True)
        shutil.copy(find_busybox(), rootfs / "bin/busybox")
        for applet in APPLETS:
            (rootfs / "bin" / applet).symlink_to("busybox")
        (self.context / "d").mkdir(parents=True)
        for name in ("a", "b", "d/c", "d/e"):
            (self.context / name).write_text("0")
        self._check_out()

    def edit(self, what: str, name: str, value: str | int) -> None:
        """Change something; what cannot be done is left."""
        path = self.context / name
        try:
            if what == "umask":
                self.umask = int(value)
            elif what == "arg":
                self.word = str(value)
            elif what == "secret":
                self.secret = str(value)
            elif what == "write":
                path.write_text(str(value))
            elif what == "rewrite":
                path.write_text(path.read_text())
            elif what == "chmod":
                self._chmod(name, value)
            elif what == "rename":
                path.rename(self.context / str(value))
                self.chosen.pop(name, None)
            elif what == "hard link":
                (self.context / str(value)).unlink()
                (self.context / str(value)).hardlink_to(path)
                self.chosen.pop(str(value), None)
            else:
                self._remove(path)
                if what == "link":
                    path.symlink_to(str(value))
        except OSError:
            pass
        self._check_out()

    def _chmod(self, name: str, value: str | int) -> None:
        path = self.context / name
        if isinstance(value, int):
            self.chosen[name] = value
        else:
            self.chosen.pop(name, None)
            if path.is_file():
                path.chmod(0o644 if value == PLAIN else 0o755)

    def _remove(self, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def _check_out(self) -> None:
        """Give everything the mode that the umask leaves, but for what was chosen."""
        self.context.chmod(0o777 & ~self.umask)
        for path in self.context.rglob("*"):
            if path.is_symlink():
                continue
            mode = path.stat().st_mode
            program = path.is_dir() or (mode & 0o7777 not in CHOSEN and mode & 0o100)
            wanted = self.chosen.get(str(path.relative_to(self.context)), (0o777 if program else 0o666) & ~self.umask)
            if wanted != mode & 0o7777:
                path.chmod(wanted)

    def build(self, root: Path, dockerfile: str, **more: object) -> Tree | str:
        """Build as the command line does, through the memo; return the tree, or what kind of error it was."""
        options = BuildOptions(
            context=str(self.context),
            dockerfile=dockerfile.encode(),
            build_args={"WORD": self.word},
            build_contexts={"rootfs": str(self.folder / "rootfs")},
        )
        for name, value in more.items():
            setattr(options, name, value)
        if "id=s" in dockerfile:
            options.counted_secrets = ["s"]
        hit = fast.try_cached(asdict(options), str(root))
        if hit is not None:
            return image_tree(root, hit.digest)
        contexts = {"context": self.context, "rootfs": self.folder / "rootfs"}
        session = PlainSession(contexts, {"s": self.secret.encode()}, {}, {})
        try:
            result = build(options, session, Environment(root), discard, Cancel())
        except Error as error:
            return type(error).__name__
        return image_tree(root, result.digest)

    def uncached(self, dockerfile: str) -> Tree | str:
        """Build without any cache."""
        self.stores += 1
        root = self.folder / f"cold{self.stores}"
        try:
            return self.build(root, dockerfile, no_cache=True)
        finally:
            shutil.rmtree(root)


def as_git(tree: Tree | str) -> Tree | str:
    """The same tree, with git's modes for those that some umask here leaves of them."""
    if isinstance(tree, str):
        return tree
    usual: Mapping[int, int] = {
        **{0o666 & ~umask: 0o644 for umask in UMASKS},
        **{0o777 & ~umask: 0o755 for umask in UMASKS},
    }
    return {path: (kind, usual.get(mode, mode), *rest) for path, (kind, mode, *rest) in tree.items()}  # type: ignore[misc]


@settings(max_examples=16, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@example(EVERYTHING, ONE_BY_ONE)
@given(dockerfiles(), st.lists(st.lists(edits, min_size=1, max_size=2), min_size=3, max_size=6))
def test_a_cached_build_gives_the_tree_of_an_uncached_one(
    dockerfile: str, rounds: Sequence[Sequence[tuple[str, str, str | int]]]
) -> None:
    """L15, L14: after every edit, and from an exported cache in an empty store."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        world = World(Path(temporary))
        warm, cache = world.folder / "warm", f"{world.folder}/cache"
        world.build(warm, dockerfile)
        expected: Tree | str = ""
        for changes in rounds:
            for change in changes:
                world.edit(*change)
            expected = as_git(world.uncached(dockerfile))
            event("fails" if isinstance(expected, str) else "builds")

            assert as_git(world.build(warm, dockerfile)) == expected
            assert as_git(world.build(warm, dockerfile)) == expected, "the same again"

        assert as_git(world.build(warm, dockerfile, cache_to=[f"type=local,mode=max,dest={cache}"])) == expected
        if os.path.exists(cache):
            there = world.build(world.folder / "other", dockerfile, cache_from=[f"type=local,src={cache}"])
            assert as_git(there) == expected
