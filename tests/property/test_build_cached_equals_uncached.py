"""For random small Dockerfiles and context edits, a cached build gives the same tree as one without cache."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.bases import busybox_context
from support.command import Lamina

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root for overlay mounts"),
    pytest.mark.skipif(shutil.which("crun") is None, reason="no crun here: apt-get install crun"),
]

MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # trees come and go by the thousand
FILES = ("a", "b", "d/c", "d/e")
paths = st.sampled_from(["/x", "/y", "/dir/x", "/dir/sub/y", "/bin/x"])
instructions = st.one_of(
    st.builds("COPY {} {}".format, st.sampled_from(["a", "b", "d", ".", "d/*", "a b"]), st.just("/into/")),
    st.builds("COPY {} {}".format, st.sampled_from(["a", "d/c"]), paths),
    st.builds("RUN mkdir -p /dir && cat /into/* > {} 2>/dev/null; true".format, paths),
    st.builds("RUN rm -rf {}".format, paths),
    st.builds("RUN ls -R /into > {} 2>&1; true".format, st.just("/list")),
    st.builds("COPY --from=first /into {}".format, st.just("/first/")),
    st.builds("RUN --mount=type=bind,target=/src cp -r /src/d {} 2>/dev/null; true".format, st.just("/bound")),
    st.builds("WORKDIR {}".format, st.sampled_from(["/dir", "/w"])),
    st.builds("ENV V={}".format, st.integers(0, 3)),
)
edits = st.lists(st.tuples(st.sampled_from(FILES), st.integers(0, 3), st.booleans()), min_size=1, max_size=3)


def tree(root: Path) -> list[tuple[str, str, int, bytes]]:
    """Return a file tree as comparable values; times do not count, and listings of the context's own files do."""
    found = []
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        kind = "l" if path.is_symlink() else "d" if path.is_dir() else "f"
        data = os.readlink(path).encode() if kind == "l" else path.read_bytes() if kind == "f" else b""
        found.append((str(path.relative_to(root)), kind, status.st_mode, data))
    return found


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(
    st.lists(instructions, min_size=1, max_size=4),
    st.lists(instructions, min_size=1, max_size=4),
    st.lists(edits, min_size=1, max_size=2),
)
def test_a_cached_build_gives_the_tree_of_an_uncached_one(first, second, rounds):
    with tempfile.TemporaryDirectory(dir=MEMORY) as temporary:
        folder = Path(temporary)
        first = [line for line in first if "--from" not in line]
        lines = ["FROM base AS first", *first, "FROM base", *second]
        context = busybox_context(folder / "ctx", "\n".join(lines) + "\n")
        (context / ".dockerignore").write_text("rootfs/sys\n")
        for name in FILES:
            (context / name).parent.mkdir(exist_ok=True)
            (context / name).write_text("0")
        (context / "Dockerfile").write_text((context / "Dockerfile").read_text().replace("COPY . ", "COPY d a "))
        warm = Lamina(folder / "warm")
        warm.build(context)

        for number, changes in enumerate(rounds):
            for name, value, touch_only in changes:
                (context / name).write_text((context / name).read_text() if touch_only else str(value))
            warm.build(context, "-o", f"type=local,dest={folder / f'cached{number}'}")
            cold = Lamina(folder / f"cold{number}")
            cold.build(context, "-o", f"type=local,dest={folder / f'uncached{number}'}")

            assert tree(folder / f"cached{number}") == tree(folder / f"uncached{number}")
