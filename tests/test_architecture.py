"""The table of rooms: who may import whom, and who may look at the process environment."""

import ast
from pathlib import Path

SRC = Path(__file__).parent.parent / "src" / "lamina"

RANKS = {
    "errors": 0, "progress": 0.5, "cancel": 0.5,  # both name errors, nothing else
    "oci": 1, "rooted": 1, "elf": 1, "patterns": 1, "session": 1, "git_url": 1, "csvline": 1, "config": 1,
    "llb": 2, "solver": 2, "store": 2, "state": 2, "layer": 2, "registry": 2,
    "policy": 2.5,  # reads graphs
    "dockerfile": 3, "snapshot": 3, "executor": 3, "image": 3, "api": 3,
    "source": 4, "cache": 4, "checks": 4, "history": 4, "tunnel": 4, "attest": 4,
    "rpc": 4.5,  # the serving end of what `tunnel` calls through
    "tracing": 4.7,  # sends through `tunnel`
    "ops": 5, "exporter": 5,
    "remote": 5.5,  # sends what exporters make
    "engine": 6,
    "frontend": 6.5,
    "bridge": 7,
    "daemon": 8,
    "cli": 9,
}  # fmt: skip

PURE = [
    *("errors", "progress", "oci", "patterns", "elf", "git_url", "csvline", "config", "solver", "llb", "policy"),
    "checks",
]
IMPURE_IN_PURE = {"solver/runner.py", "oci/platform.py", "solver/keying.py"}
IO_MODULES = {"socket", "subprocess", "sqlite3", "urllib3", "shutil", "tempfile", "fcntl"}

ENVIRONMENT_ALLOWED = {
    "cli": "speaks for the user",
    "__main__": "hands over to cli",
}


def modules():
    for path in sorted(SRC.rglob("*.py")):
        if "pb" in path.relative_to(SRC).parts:
            continue
        yield path, path.relative_to(SRC)


def room_of(relative: Path) -> str:
    return relative.parts[0].removesuffix(".py")


def imports(tree: ast.Module, relative: Path):
    """Yield every module of ours that is imported, anywhere in the file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative}:{node.lineno}: relative import"
            if node.module == "lamina":
                for alias in node.names:
                    yield f"lamina.{alias.name}", node.lineno
            elif node.module and node.module.startswith("lamina."):
                yield node.module, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("lamina."):
                    yield alias.name, node.lineno


def test_every_room_is_in_the_table():
    """A new room is placed before it is used."""
    rooms = {room_of(relative) for _, relative in modules()} - {"__init__", "__main__"}

    assert rooms <= set(RANKS), rooms - set(RANKS)


def test_imports_point_to_lower_floors():
    """A room imports only rooms of a smaller rank, or itself."""
    wrong = []
    for path, relative in modules():
        room = room_of(relative)
        if room in ("__init__", "__main__"):
            continue
        for name, line in imports(ast.parse(path.read_text("utf8")), relative):
            target = name.split(".")[1]
            if target == "__version__" or target == room:
                continue
            if RANKS.get(target, 99) >= RANKS[room]:
                wrong.append(f"{relative}:{line}: {room} (rank {RANKS[room]}) imports {target} ({RANKS.get(target)})")

    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_reads_the_environment():
    """Everything below rank 7 is told what it needs."""
    wrong = []
    for path, relative in modules():
        if room_of(relative) in ENVIRONMENT_ALLOWED:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv", "environb"):
                wrong.append(f"{relative}:{node.lineno}")

    assert not wrong, "\n".join(wrong)


def test_pure_rooms_do_no_io():
    """Files, sockets and processes stay at the rim."""
    wrong = []
    for path, relative in modules():
        if room_of(relative) not in PURE or str(relative) in IMPURE_IN_PURE:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name.split(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module.split(".")[0]]
            wrong += [f"{relative}:{node.lineno}: {name}" for name in names if name in IO_MODULES]

    assert not wrong, "\n".join(wrong)


def test_modules_have_docstrings():
    """A reader learns from the first lines what a module is for."""
    trees = ((relative, ast.parse(path.read_text("utf8"))) for path, relative in modules())

    missing = [str(relative) for relative, tree in trees if not ast.get_docstring(tree)]

    assert not missing
