"""How `lamina du`, `du --why` and `prune` grow with the number of records: `python bench/upkeep.py`.

No peer does this work (none says why a thing is kept, or what a prune costs), so the rows stand alone; what counts
is that ten times the records cost ten times the time, not a hundred times. The store is made up: chains of twenty
layers, each with a record, a tree of one file, an index and a blob.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
CHAIN = 20
COMMANDS = {
    "du": ["du"],
    "du --why": ["du", "--why", "1"],
    "prune --max-used-space, dry run": ["prune", "--max-used-space", "1MB", "--dry-run"],
    "prune --max-used-space": ["prune", "--max-used-space", "4MB", "--force"],
    "prune --all": ["prune", "--all", "--force"],
}


def base36(number: int) -> str:
    """Return the name of a layer's tree."""
    text = ""
    while True:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
        if number == 0:
            return text


def make_store(root: Path, records: int) -> None:
    """Make a store of that many records."""
    subprocess.run([sys.executable, "-m", "lamina", "--root", root, "du"], stdout=subprocess.DEVNULL, check=True)
    db = sqlite3.connect(root / "state.db", isolation_level=None)
    db.execute("BEGIN")
    then = time.time() - 86_400
    for number in range(1, records + 1):
        blob = b"blob %d" % number
        digest = hashlib.sha256(blob).hexdigest()
        (root / "oci/blobs/sha256" / digest).write_bytes(blob)
        (root / "trees" / base36(number)).mkdir()
        (root / "trees" / base36(number) / "f").write_bytes(b"x")
        (root / "indexes" / base36(number)).write_bytes(b"x" * 200)
        os.utime(root / "oci/blobs/sha256" / digest, (then, then))
        parent = None if number % CHAIN == 1 else number - 1
        db.execute(
            """INSERT INTO layer(id, parent, blob, blob_size, tree, indexed, size, tree_bytes, index_bytes, description,
            created, used) VALUES (?, ?, ?, ?, 1, 1, 1, 8192, 200, ?, ?, ?)""",
            (number, parent, f"sha256:{digest}", len(blob), f"RUN step {number}", then, then),
        )
        db.execute(
            "INSERT INTO node(id, canon, description, seconds, created, used) VALUES (?, ?, ?, ?, ?, ?)",
            (number, f"canon {number}", f"RUN step {number}", number % 17 / 4, then, then - number),
        )
        db.execute("INSERT INTO result VALUES (?, 0, ?)", (number, number))
        db.execute("INSERT INTO key VALUES (?, ?)", (f"key {number}", number))
    db.execute("COMMIT")
    db.close()


def main() -> int:
    """Time every command on stores of growing size."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--rounds", type=int, default=3, help="counted runs of each row")
    parser.add_argument("--records", type=int, nargs="*", default=[1000, 10_000])
    options = parser.parse_args()
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    print(f"{'':34s}" + "".join(f"{count:>12,d} records" for count in options.records))
    with tempfile.TemporaryDirectory(prefix="lamina-bench-", dir=memory) as temporary:
        for count in options.records:
            make_store(Path(temporary) / f"of-{count}", count)
        for name, command in COMMANDS.items():
            cells = []
            for count in options.records:
                taken = []
                for turn in range(options.rounds):
                    root = Path(temporary) / f"try-{turn}"
                    shutil.copytree(Path(temporary) / f"of-{count}", root, symlinks=True)
                    began = time.monotonic()
                    run = [sys.executable, "-m", "lamina", "--root", root, *command]
                    subprocess.run(run, stdout=subprocess.DEVNULL, check=True)
                    taken.append(time.monotonic() - began)
                    shutil.rmtree(root)
                cells.append(f"{statistics.median(taken):18.3f} s")
            print(f"{name:34s}" + "".join(cells), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
