"""Make a small Debian or Ubuntu root file system as a tar archive, from this machine's own package sources.

    python3 scripts/debian_rootfs.py OUT.tar [PACKAGE...]

Uses mmdebstrap (variant minbase) with the entries of /etc/apt that belong to this release, so that it works where
only a mirror is reachable. The archive appears under its name only when it is whole; several processes that want the
same one wait for the first. An archive that is there already is kept. Standard library only.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

_SPARE = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_HOST_SETTINGS = re.compile(r"Acquire::(?:http|https)::(?:\S+::)?(?:Proxy|CaInfo|Verify-Peer|Verify-Host) ", re.I)


def main(arguments: list[str]) -> int:
    """Make the archive named by the first argument, with the packages named by the others."""
    if not arguments:
        sys.stderr.write(__doc__ or "")
        return 2
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(target.with_name(target.name + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            make(target, arguments[1:])
    return 0


def make(target: Path, packages: list[str]) -> None:
    """Run mmdebstrap and put its result at `target`."""
    codename = read_codename()
    sources = own_sources(codename)
    program = shutil.which("mmdebstrap")
    if program is None:
        raise SystemExit("mmdebstrap is missing: apt-get install mmdebstrap")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    command = [program, "--quiet", "--variant=minbase", "--skip=output/dev", "--format=tar"]
    command += [f"--include={','.join(packages)}"] if packages else []
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _SPARE]
    command += [f"--aptopt={setting}" for setting in host_settings()]
    command += [codename, str(partial), *(["-"] if sources else [])]
    try:
        subprocess.run(command, input="\n".join(sources) + "\n", text=True, check=True)
        partial.rename(target)
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"mmdebstrap failed with exit code {error.returncode}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_codename() -> str:
    """Return the release's name, such as bookworm or noble."""
    for line in Path("/etc/os-release").read_text().splitlines():
        if line.startswith("VERSION_CODENAME="):
            return line.partition("=")[2].strip('"')
    raise SystemExit("/etc/os-release names no VERSION_CODENAME; this works on Debian and Ubuntu")


def host_settings() -> list[str]:
    """Return this machine's apt settings about proxies and certificates, as apt.conf lines."""
    program = shutil.which("apt-config")
    if program is None:
        return []
    dump = subprocess.run([program, "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if _HOST_SETTINGS.match(line)]


def own_sources(codename: str) -> list[str]:
    """Return `deb` lines for this release out of /etc/apt, without third parties' archives."""
    folder = Path("/etc/apt")
    lines: list[str] = []
    for path in sorted([folder / "sources.list", *(folder / "sources.list.d").glob("*")]):
        if path.suffix == ".list" and path.is_file():
            lines += one_line_sources(path.read_text(errors="replace"))
        elif path.suffix == ".sources" and path.is_file():
            lines += deb822_sources(path.read_text(errors="replace"))
    suites = {codename, f"{codename}-updates", f"{codename}-security"}
    return list(dict.fromkeys(line for line in lines if suite_of(line) in suites and is_distribution(line)))


def suite_of(line: str) -> str:
    """Return the suite of a `deb [options] uri suite component...` line."""
    words = re.sub(r"\[[^]]*\]", "", line).split()
    return words[2].rstrip("/") if len(words) > 3 else ""


def is_distribution(line: str) -> bool:
    """Tell whether a line is of the distribution itself: its keys are known, or it names Debian's or Ubuntu's."""
    return "signed-by=" not in line or "debian-archive" in line or "ubuntu-archive" in line


def one_line_sources(text: str) -> list[str]:
    """Return the `deb` lines of a sources.list."""
    return [line.strip() for line in text.splitlines() if re.match(r"\s*deb\s", line)]


def deb822_sources(text: str) -> list[str]:
    """Return the stanzas of a .sources file as `deb` lines."""
    lines: list[str] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {}
        for line in stanza.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith(("#", " ", "\t")):
                fields[name.strip().lower()] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        key = fields.get("signed-by", "")
        option = f"[signed-by={key}] " if key.startswith("/") else ""
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                lines.append(f"deb {option}{uri} {suite} {fields.get('components', 'main')}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
