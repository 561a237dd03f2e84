"""Compare `lamina build` with the builders that are here: `make bench`, or `python bench/run.py [-n ROUNDS] [ROW...]`.

Peers: Debian's dockerd (BuildKit of its day) and buildah, and a current buildkitd when it, buildctl and an OCI runtime
are on PATH. Every row does the same work with each of them, in turns, from whole process to whole process, and prints
medians and ratios ours/theirs. Trees and stores lie on tmpfs where there is one. Nothing is timed by tests.

Mind that dockerd and buildah keep layers uncompressed, while ours and buildkitd's are packed, compressed and digested.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))

from peers import ARCHIVE, STORE, Peer, docker, peers, serve  # noqa: E402

from support.bases import busybox_context  # noqa: E402
from support.registry import bytes_kept, bytes_sent, running_registry  # noqa: E402


class Bench:
    """Times one row after the other and prints them."""

    def __init__(self, tools: list[Peer], folder: Path, rounds: int) -> None:
        self.tools, self.folder, self.rounds = tools, folder, rounds

    def row(
        self,
        name: str,
        context: Path,
        before: Callable[[Peer], object] = lambda _peer: None,
        *,
        cold: bool = False,
        output: str = STORE,
        extra: Callable[[Peer], list[str]] = lambda _peer: [],
        tools: list[Peer] | None = None,
        moved: Callable[[], int] | None = None,
    ) -> None:
        """Time one kind of build with every tool that can do it, in turns, after one round that does not count.

        With `moved`, which counts bytes, tell how many a build of the first round came to.
        """
        able = [tool for tool in (tools or self.tools) if output in tool.commands]
        taken: dict[str, list[float]] = {tool.name: [] for tool in able}
        sizes: dict[str, int] = {}
        for turn in range(self.rounds + 1):
            for tool in able:
                before(tool)
                words = [*extra(tool), *([tool.no_cache] if cold else [])]
                before_bytes = moved() if moved else 0
                began = time.monotonic()
                if tool.build(context, output, self.folder / "out.tar", words) and turn:
                    taken[tool.name].append(time.monotonic() - began)
                if moved and not turn:
                    sizes[tool.name] = moved() - before_bytes
        show(name, taken, sizes)


def show(name: str, taken: dict[str, list[float]], sizes: dict[str, int]) -> None:
    """Print one row."""
    ours = statistics.median(taken["lamina"]) if taken["lamina"] else float("nan")
    cells = [f"lamina {ours:7.3f} s"]
    for tool, times in taken.items():
        if tool != "lamina" and times:
            theirs = statistics.median(times)
            cells.append(f"{tool} {theirs:7.3f} s ({ours / theirs:5.2f}x)")
    cells += [f"{tool} {size / (1 << 20):.1f} MiB" for tool, size in sizes.items()]
    print(f"{name:42s} " + "   ".join(cells), flush=True)


def fill(folder: Path, files: int, low: int, high: int) -> Path:
    """Make that many files of random sizes, half of them text."""
    dice, noise = random.Random(1), os.urandom(1 << 20)
    for number in range(files):
        path = folder / f"d{number // 100}" / f"f{number}"
        path.parent.mkdir(exist_ok=True, parents=True)
        size = dice.randint(low, high)
        path.write_bytes(noise[:size] if number % 2 else (b"line %d of text\n" % number * size)[:size])
    return folder


def touch(folder: Path) -> Callable[[Peer], object]:
    """Return what changes one file."""
    return lambda _peer: (folder / "d1" / "f101").write_text(str(time.time()))


def steps(bench: Bench, folder: Path) -> None:
    """Cached and small steps."""
    ten = busybox_context(folder / "ten", "FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(8)))
    bench.row("10 steps, nothing changed", ten)
    thirty = busybox_context(folder / "steps", "FROM base\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(30)))
    bench.row("30 RUN steps", thirty, cold=True)


def stages(bench: Bench, folder: Path) -> None:
    """Many stages, and many vertices with nothing changed."""
    text = "".join(f"FROM base AS s{n}\nRUN echo {n} > /{n}\n" for n in range(200))
    text += "FROM base\n" + "".join(f"COPY --from=s{n} /{n} /\n" for n in range(100))
    many = busybox_context(folder / "stages", text.replace("FROM base\nCOPY", "FROM base\nCOPY", 1))
    bench.row("100 independent stages: cold", many, cold=True)
    bench.row("100 independent stages: nothing changed", many)


def vertices(bench: Bench, folder: Path) -> None:
    """A graph of 500 vertices in which nothing changed."""
    steps = "".join(f"RUN echo {n} >> /f\n" for n in range(8))  # peers take no chain of more than 125 layers
    text = "".join(f"FROM base AS s{n}\nRUN echo {n} > /{n}\n{steps}" for n in range(50))
    text += "FROM base\n" + "".join(f"COPY --from=s{n} /{n} /\n" for n in range(50))
    bench.row("500 vertices: nothing changed", busybox_context(folder / "vertices", text))


def clients(bench: Bench, folder: Path) -> None:
    """A large context that docker's client sends to our daemon, and to its own."""
    theirs = [tool for tool in bench.tools if tool.name == "dockerd"]
    if not theirs:
        return
    big = fill(_made(folder / "sent"), 20_000, 1000, 50_000)
    (big / "Dockerfile").write_text("FROM scratch\nCOPY . /src\n")
    with serve(folder / "serve") as address:
        tools = [replace(docker(address), name="lamina"), *theirs]

        def forget(tool: Peer) -> None:
            words = ["/usr/bin/docker", "builder", "prune", "--all", "--force"]
            subprocess.run(words, env=tool.env, capture_output=True, check=False)

        bench.row("20,000 files sent by docker: cold", big, forget, tools=tools)
        bench.row("20,000 files sent by docker: unchanged", big, tools=tools)
        bench.row("20,000 files sent by docker: one changed", big, touch(big), tools=tools)


def contexts(bench: Bench, folder: Path) -> None:
    """Files in, files changed."""
    many = fill(folder / "many", 2000, 1000, 20_000)
    (many / "Dockerfile").write_text("FROM scratch\nCOPY . /src\n")
    bench.row("1 file of 2,000 changed", many, touch(many))
    big = fill(folder / "big", 20_000, 1000, 60_000)
    (big / "Dockerfile").write_text("FROM scratch\nCOPY . /src\n")
    bench.row("context of 20,000 files: cold", big, cold=True)
    bench.row("context of 20,000 files: unchanged", big)
    bench.row("context of 20,000 files: one changed", big, touch(big))


def files(bench: Bench, folder: Path) -> None:
    """Steps that make many files, and files from stage to stage."""
    making = (
        "RUN mkdir /f && cd /f && for d in $(seq 500); do mkdir $d; for n in $(seq 100); do echo $n > $d/$n; done; done"
    )
    made = busybox_context(folder / "made", f"FROM base\n{making}\n")
    bench.row("RUN that makes 50,000 files", made, cold=True)
    moved = fill(folder / "moved" / "src", 10_000, 1000, 104_000).parent
    (moved / "Dockerfile").write_text("FROM scratch AS a\nCOPY src /src\nFROM scratch\nCOPY --from=a /src /dst\n")
    bench.row("500 MiB in 10,000 files, stage to stage", moved, cold=True)


def archives(bench: Bench, folder: Path) -> None:
    """A large layer, written out."""
    layer = folder / "layer"
    layer.mkdir()
    with (layer / "blob").open("wb") as file:
        for number in range(1024):
            file.write(os.urandom(1 << 19) + b"line %6d\n" % number * (1 << 16))
            file.truncate((number + 1) << 20)
            file.seek((number + 1) << 20)
    (layer / "Dockerfile").write_text("FROM scratch\nCOPY blob /\n")
    bench.row("1 GiB layer to OCI archive (gzip)", layer, cold=True, output=ARCHIVE)


def caches(bench: Bench, folder: Path) -> None:
    """A registry cache written and read, by those that have one; and what it came to in bytes."""
    home = _made(folder / "registry")
    with running_registry(home, log_level="info") as registry:
        able = [tool for tool in bench.tools if tool.cache_to]
        text = "FROM base AS a\nRUN dd if=/dev/urandom of=/a bs=1M count=50\n"
        text += "FROM base\nCOPY --from=a /a /a\n" + "".join(f"RUN echo {n} > /{n}\n" for n in range(20))
        context = busybox_context(folder / "cached", text)

        def refs(words: list[str], tool: Peer) -> list[str]:
            repository = f"{registry}/{tool.name}"
            return [word.format(ref=f"{repository}:cache", repository=repository) for word in words]

        def forget(tool: Peer) -> None:
            subprocess.run(tool.forget, capture_output=True, check=False)

        export = lambda tool: refs(tool.cache_to, tool)  # noqa: E731
        import_ = lambda tool: refs(tool.cache_from, tool)  # noqa: E731
        kept, sent = partial(bytes_kept, home), partial(bytes_sent, home)
        bench.row("registry cache: build and export", context, forget, extra=export, tools=able, moved=kept)
        fetch = partial(bench.row, extra=import_, output=ARCHIVE, tools=able, moved=sent)
        fetch("registry cache: import to an archive", context, forget)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


ROWS = {row.__name__: row for row in (steps, stages, vertices, contexts, clients, files, archives, caches)}


def main() -> int:
    """Run the rows that were named, all by default."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-n", "--rounds", type=int, default=3, help="counted runs of each tool and row")
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], help="groups of rows (default: all)")
    arguments = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=memory) as temporary:
        folder = Path(temporary)
        with peers(folder) as tools:
            bench = Bench(tools, folder, arguments.rounds)
            for name in arguments.rows or ROWS:
                ROWS[name](bench, folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
