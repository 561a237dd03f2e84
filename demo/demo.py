"""The main job on real input: base image, web application, run, ask, rebuild, edit, rebuild. `make demo`.

Works in .demo/ and .cache/ of this checkout, with a store of its own; leaves no process behind. Standard library only:
everything about images is done by the `lamina` command, as a user would.
"""

from __future__ import annotations

import configparser
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
WORK = HERE.parent / ".demo"
ROOTFS = HERE.parent / ".cache" / "debian-python.tar"
PACKAGES = ["python3", "python3-venv", "ca-certificates"]
BASE, IMAGE = "lamina-demo/base", "lamina-demo/web"
START_TIMEOUT_S = 30
PIP_KEYS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")

durations: list[tuple[str, float]] = []


def main() -> int:
    """Run the whole demo and print how long each part took."""
    WORK.mkdir(exist_ok=True)
    shutil.rmtree(WORK / "web", ignore_errors=True)
    shutil.copytree(HERE / "web", WORK / "web", ignore=shutil.ignore_patterns("__pycache__"))
    os.environ["LAMINA_ROOT"] = str(WORK / "state")

    part("assemble a Debian root file system from this machine's package sources", make_rootfs)
    part("build the base image: FROM scratch, ADD rootfs.tar", build_base)
    part("build the web application: two stages, pip install in a cache mount", lambda: build_web("--no-cache"))
    part("run it and ask for a page over HTTP", run_and_ask)
    part("build again, nothing changed", build_web)
    edit_source()
    part("build again after an edit of one source file", build_web)
    part("run the edited application and ask again", run_and_ask)

    print("\nHow long each part took:")
    for name, seconds in durations:
        print(f"  {seconds:7.2f} s  {name}")
    print(f"  {sum(seconds for _, seconds in durations):7.2f} s  in all")
    return 0


def part(name: str, work: Callable[[], None]) -> None:
    """Do one part of the demo, and note how long it took."""
    print(f"\n=== {name}", flush=True)
    began = time.monotonic()
    work()
    durations.append((name, time.monotonic() - began))


def lamina(*words: str) -> list[str]:
    """Return the command line for `lamina` of this environment."""
    return [sys.executable, "-m", "lamina", *words]


def make_rootfs() -> None:
    """Make the archive, or keep the one from before, and offer it to the base image's build."""
    if ROOTFS.exists():
        print(f"there already: {ROOTFS}")
    subprocess.run([sys.executable, HERE.parent / "scripts" / "debian_rootfs.py", ROOTFS, *PACKAGES], check=True)
    folder = WORK / "base"
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / "base" / "Dockerfile", folder)
    (folder / "rootfs.tar").unlink(missing_ok=True)
    try:
        os.link(ROOTFS, folder / "rootfs.tar")
    except OSError:
        shutil.copy(ROOTFS, folder / "rootfs.tar")


def build_base() -> None:
    """Build the base image."""
    subprocess.run(lamina("build", "-t", BASE, str(WORK / "base")), check=True)


def build_web(*options: str) -> None:
    """Build the application; steps trust what this machine trusts, and pip uses this machine's index."""
    command = lamina("build", "-t", IMAGE, "--ca", "host", *options)
    config = pip_config()
    if config:
        command += ["--secret", "id=pip,env=LAMINA_DEMO_PIP_CONF"]
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"):
        if os.environ.get(name):
            command += ["--build-arg", name]
    subprocess.run([*command, str(WORK / "web")], env={**os.environ, "LAMINA_DEMO_PIP_CONF": config}, check=True)


def pip_config() -> str:
    """Return this machine's pip settings that make sense inside a step: no paths, no file: addresses."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        found[name.rpartition(".")[2].replace("_", "-")] = value.strip("'\"").replace("\\n", " ")
    config = configparser.RawConfigParser()
    config.add_section("global")
    for key in PIP_KEYS:
        value = os.environ.get("PIP_" + key.upper().replace("-", "_")) or found.get(key, "")
        words = [word for word in value.split() if not word.startswith(("/", ".", "file:"))]
        if words:
            config.set("global", key, " ".join(words))
    if not config.options("global"):
        return ""
    text = io.StringIO()
    config.write(text)
    return text.getvalue()


def edit_source() -> None:
    """Change the line that the page shows."""
    path = WORK / "web" / "app" / "greeting.py"
    path.write_text(path.read_text().replace("Hello from", "Hello again from"))
    print(f"\n=== edited {path.relative_to(WORK)}")


def run_and_ask() -> None:
    """Start the application with `lamina run`, print its answer, stop it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = lamina("run", "--rm", "-e", f"PORT={port}", IMAGE)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True) as server:
        try:
            print(ask(server, f"http://127.0.0.1:{port}/"))
        finally:
            stop(server)


def ask(server: subprocess.Popen[bytes], url: str) -> str:
    """Return the page at `url` as soon as the server answers."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        if server.poll() is not None:
            raise SystemExit(f"the application ended with exit code {server.returncode}")
        try:
            with opener.open(url, timeout=5) as answer:
                return f"GET {url} -> {answer.status}\n{answer.read().decode()}"
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                raise SystemExit(f"no answer from {url} within {START_TIMEOUT_S} s") from None
            time.sleep(0.05)


def stop(server: subprocess.Popen[bytes]) -> None:
    """End the server in good order, or by force."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=10)
    except subprocess.TimeoutExpired:
        server.kill()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as failed:
        sys.exit(failed.returncode)
