"""Scripted causes of a cache miss: a build, an edit, a build again. Each is one function over a `Case`.

The sentences that each must give stand in `tests/golden/why/<name>`.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lamina
from lamina.cache.changes import Explanation
from lamina.cancel import Cancel
from lamina.engine.disk import prune
from lamina.engine.options import BuildResult, Environment
from lamina.errors import CancelledError, Error
from lamina.progress import Event, LogEvent
from support.bases import busybox_context, find_busybox
from support.git_server import Repository, running_git_server
from support.web import Served, running_web

BASE = "why-base:1"


class Case:
    """A project of its own below `folder`, in a copy of the store `root`, whose image `why-base:1` is busybox.

    Attributes:
        last: what the last build returned.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder = folder
        self.root = Path(shutil.copytree(root, folder / "root", symlinks=True))
        self.context = folder / "project"
        self.context.mkdir()
        self.last = BuildResult()

    def write(self, path: str, text: str = "text\n", mode: int = 0o644) -> None:
        """Write a file of the context."""
        whole = self.context / path
        whole.parent.mkdir(parents=True, exist_ok=True)
        whole.write_text(text)
        whole.chmod(mode)

    def dockerfile(self, text: str) -> None:
        """Write the Dockerfile; what is indented like the caller is not."""
        self.write("Dockerfile", text)

    def build(self, **options: Any) -> BuildResult:
        """Build, and keep the result."""
        self.last = lamina.build(self.context, root=self.root, **options)
        return self.last

    def fail(self, **options: Any) -> None:
        """Build what must fail."""
        try:
            self.build(**options)
        except Error:
            return
        raise AssertionError("the build did not fail")

    def image(self, name: str, text: str) -> None:
        """Make an image in the store."""
        lamina.build(_empty(self.folder), dockerfile=text.encode(), tags=[name], root=self.root)

    def edit(self, sql: str) -> None:
        """Change the state file."""
        connection = sqlite3.connect(self.root / "state.db")
        with connection:
            connection.executescript(sql)
        connection.close()

    def told(self) -> str:
        """Return what the last build said of each step that ran, without what differs from run to run."""
        return "".join(f"{told.step}\n    {told.sentence}\n" for told in map(plain, self.last.explanations))


def plain(told: Explanation) -> Explanation:
    """Return an explanation with ids, digests and times made equal."""

    def clean(text: str) -> str:
        text = re.sub(r"sha256:[0-9a-f]{12,64}", "sha256:...", text)
        text = re.sub(r"\b[0-9a-f]{40}\b|\b[0-9a-f]{12}\b", "COMMIT", text)
        text = re.sub(r"\bbuild [0-9a-f]{10}\b", "build ID", text)
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "TIME", text)
        return re.sub(r"127\.0\.0\.1:\d+", "SERVER", text)

    return Explanation(clean(told.step), clean(told.sentence), told.cause, clean(told.root), clean(told.origin))


def _empty(folder: Path) -> Path:
    empty = folder / "empty"
    empty.mkdir(exist_ok=True)
    return empty


def make_base(folder: Path, root: Path) -> None:
    """Put the base image into a store."""
    lamina.build(busybox_context(folder), tags=[BASE], root=root)


CAUSES: dict[str, Callable[[Case], None]] = {}


def cause(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Register a cause under its name."""
    CAUSES[function.__name__] = function
    return function


COPIES = f"FROM {BASE}\nCOPY app /app\nRUN ls -l /app > /all\n"


def edited(case: Case, before: str, after: str, **options: Any) -> None:
    """Build one Dockerfile, then the other."""
    case.dockerfile(f"FROM {BASE}\n{before}")
    case.build(**options)
    case.dockerfile(f"FROM {BASE}\n{after}")
    case.build(**options)


# -- files


@cause
def file_content(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/main.py", "one\n")
    case.write("app/same.py")
    case.build()
    case.write("app/main.py", "two\n")
    case.build()


@cause
def file_added(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/main.py")
    case.build()
    case.write("app/deep/new.py")
    case.build()


@cause
def file_removed(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/main.py")
    case.write("app/old.py")
    case.build()
    (case.context / "app/old.py").unlink()
    case.build()


@cause
def file_renamed(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/main.py")
    case.build()
    (case.context / "app/main.py").rename(case.context / "app/start.py")
    case.build()


@cause
def file_mode(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/run.sh")
    case.build()
    (case.context / "app/run.sh").chmod(0o755)
    case.build()


@cause
def file_content_and_mode(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/run.sh")
    case.build()
    case.write("app/run.sh", "other\n", 0o755)
    case.build()


@cause
def file_became_a_link(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/a")
    case.write("app/b")
    case.build()
    (case.context / "app/b").unlink()
    (case.context / "app/b").symlink_to("a")
    case.build()


@cause
def link_target(case: Case) -> None:
    case.dockerfile(COPIES)
    for name in ("a", "b"):
        case.write(f"app/{name}")
    (case.context / "app/link").symlink_to("a")
    case.build()
    (case.context / "app/link").unlink()
    (case.context / "app/link").symlink_to("b")
    case.build()


@cause
def many_files(case: Case) -> None:
    case.dockerfile(COPIES)
    for number in range(6):
        case.write(f"app/{number}.py")
    case.build()
    for number in range(1, 6):
        case.write(f"app/{number}.py", "changed\n")
    (case.context / "app/0.py").unlink()
    case.build()


@cause
def ignore_rule(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/main.py")
    case.write("app/notes.txt")
    case.write(".dockerignore", "**/*.txt\n")
    case.build()
    (case.context / ".dockerignore").unlink()
    case.build()


@cause
def file_of_a_wildcard(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nCOPY *.txt /\n")
    case.write("a.txt")
    case.build()
    case.write("b.txt")
    case.build()


@cause
def file_of_a_named_context(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nCOPY --from=lib . /lib\n")
    lib = case.folder / "lib"
    lib.mkdir()
    (lib / "x").write_text("one\n")
    case.last = _with_context(case, lib)
    (lib / "x").write_text("two\n")
    case.last = _with_context(case, lib)


def _with_context(case: Case, lib: Path) -> BuildResult:
    from lamina.engine.build import build
    from lamina.engine.library import PlainSession
    from lamina.engine.options import BuildOptions

    dockerfile = (case.context / "Dockerfile").read_bytes()
    options = BuildOptions(str(case.context), dockerfile, build_contexts={"lib": str(lib)})
    session = PlainSession({"context": case.context, "lib": lib}, {}, {}, {})
    return build(options, session, Environment(case.root), lambda _event: None, Cancel())


@cause
def file_of_a_stage(case: Case) -> None:
    case.dockerfile(f"FROM {BASE} AS make\nCOPY src /src\nRUN cp /src /out\nFROM {BASE}\nCOPY --from=make /out /out\n")
    case.write("src", "one\n")
    case.build()
    case.write("src", "two\n")
    case.build()


@cause
def file_of_a_bind_mount(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN --mount=source=app,target=/in cat /in/x > /x\n")
    case.write("app/x", "one\n")
    case.build()
    case.write("app/x", "two\n")
    case.build()


@cause
def inline_document(case: Case) -> None:
    edited(case, "COPY <<EOF /etc/app.conf\nport 80\nEOF\n", "COPY <<EOF /etc/app.conf\nport 81\nEOF\n")


@cause
def downloaded_file(case: Case) -> None:
    with running_web() as web:
        web.files["/data"] = Served(b"one")
        case.dockerfile(f"FROM {BASE}\nADD {web.url('/data')} /data\n")
        case.build()
        web.files["/data"] = Served(b"two")
        case.build()


@cause
def git_commit(case: Case) -> None:
    served = case.folder / "served"
    repository = Repository(served / "r.git")
    repository.commit({"file": "one\n"})
    with running_git_server(served) as server:
        case.dockerfile(f"FROM {BASE}\nADD {server.url}/r.git /src\n")
        case.build()
        repository.commit({"file": "two\n"})
        case.build()


# -- the command


@cause
def command_word(case: Case) -> None:
    edited(case, "RUN echo -n one two > /x\n", "RUN echo -n one three > /x\n")


@cause
def command_grew(case: Case) -> None:
    edited(case, "RUN echo a > /x\n", "RUN echo a > /x && sync\n")


@cause
def command_shrank(case: Case) -> None:
    edited(case, "RUN echo a > /x && sync\n", "RUN echo a > /x\n")


@cause
def command_script(case: Case) -> None:
    edited(case, "RUN <<EOF\ntouch /a\ntouch /b\nEOF\n", "RUN <<EOF\ntouch /a\ntouch /c\nEOF\n")


@cause
def shell(case: Case) -> None:
    edited(case, "RUN echo a > /x\n", 'SHELL ["/bin/ash", "-e", "-c"]\nRUN echo a > /x\n')


@cause
def env_value(case: Case) -> None:
    edited(case, "ENV GREETING=hi\nRUN echo $GREETING > /x\n", "ENV GREETING=hello\nRUN echo $GREETING > /x\n")


@cause
def env_added(case: Case) -> None:
    edited(case, "RUN env > /x\n", "ENV LEVEL=2\nRUN env > /x\n")


@cause
def env_removed(case: Case) -> None:
    edited(case, "ENV LEVEL=2\nRUN env > /x\n", "RUN env > /x\n")


@cause
def env_that_looks_secret(case: Case) -> None:
    edited(case, "ENV API_TOKEN=abc123\nRUN true\n", "ENV API_TOKEN=xyz789\nRUN true\n")


@cause
def build_argument(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN echo first > /f\nARG VERSION=1\nRUN echo $VERSION > /x\n")
    case.build()
    case.build(build_args={"VERSION": "2"})


@cause
def default_of_an_argument(case: Case) -> None:
    edited(case, "ARG VERSION=1\nRUN echo $VERSION > /x\n", "ARG VERSION=2\nRUN echo $VERSION > /x\n")


@cause
def argument_in_a_path(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nARG NAME=a\nCOPY $NAME /file\n")
    case.write("a")
    case.write("b", "other\n")
    case.build()
    case.build(build_args={"NAME": "b"})


@cause
def user(case: Case) -> None:
    edited(case, "RUN id > /tmp/x\n", "USER nobody\nRUN id > /tmp/x\n")


@cause
def working_directory(case: Case) -> None:
    edited(case, "WORKDIR /one\nRUN pwd > x\n", "WORKDIR /two\nRUN pwd > x\n")


@cause
def mount_added(case: Case) -> None:
    edited(case, "RUN touch /x\n", "RUN --mount=type=cache,target=/var/cache touch /x\n")


@cause
def mount_option(case: Case) -> None:
    edited(
        case,
        "RUN --mount=type=cache,target=/c touch /x\n",
        "RUN --mount=type=cache,target=/c,sharing=locked touch /x\n",
    )


@cause
def secret_added(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN true\n")
    case.build()
    case.dockerfile(f"FROM {BASE}\nRUN --mount=type=secret,id=key,env=KEY true\n")
    case.build(secrets={"key": b"very secret value"})


@cause
def secret_that_counts(case: Case) -> None:
    """L14: a secret with a fingerprint; neither value nor fingerprint is told."""
    case.dockerfile(f"FROM {BASE}\nRUN --mount=type=secret,id=key,env=KEY true\n")
    case.build(secrets={"key": b"very secret value"}, counted_secrets=["key"])
    case.build(secrets={"key": b"another secret value"}, counted_secrets=["key"])


@cause
def secret_that_begins_to_count(case: Case) -> None:
    """L14: asked to count from now on."""
    case.dockerfile(f"FROM {BASE}\nRUN --mount=type=secret,id=key,env=KEY true\n")
    case.build(secrets={"key": b"very secret value"})
    case.build(secrets={"key": b"very secret value"}, counted_secrets=["key"])


@cause
def private_file(case: Case) -> None:
    """L15: a chmod that no umask explains."""
    case.dockerfile(COPIES)
    case.write("app/run.sh")
    case.build()
    (case.context / "app/run.sh").chmod(0o600)
    case.build()


@cause
def network(case: Case) -> None:
    edited(case, "RUN touch /x\n", "RUN --network=none touch /x\n")


@cause
def host_entry(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN cat /etc/hosts > /x\n")
    case.build(add_hosts=["db=10.0.0.1"])
    case.build(add_hosts=["db=10.0.0.2"])


@cause
def limit(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN touch /x\n")
    case.build(ulimits=["nofile=1024:1024"])
    case.build(ulimits=["nofile=2048:4096"])


@cause
def host_name(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN hostname > /x\n")
    case.build()
    case.build(hostname="builder")


# -- copies


@cause
def copy_destination(case: Case) -> None:
    case.write("a")
    edited(case, "COPY a /one\n", "COPY a /two\n")


@cause
def copy_mode(case: Case) -> None:
    case.write("a")
    edited(case, "COPY --chmod=644 a /a\n", "COPY --chmod=755 a /a\n")


@cause
def copy_owner(case: Case) -> None:
    case.write("a")
    edited(case, "COPY a /a\n", "COPY --chown=nobody a /a\n")


@cause
def copy_of_more(case: Case) -> None:
    case.write("a")
    case.write("b")
    edited(case, "COPY a /dir/\n", "COPY a b /dir/\n")


@cause
def copy_exclude(case: Case) -> None:
    case.write("app/a.py")
    case.write("app/a.txt")
    edited(case, "COPY app /app\n", "COPY --exclude=*.txt app /app\n")


# -- bases and platforms


@cause
def base_image_moved(case: Case) -> None:
    case.image("why-app:1", f"FROM {BASE}\nRUN echo one > /release\n")
    case.dockerfile("FROM why-app:1\nRUN cat /release > /x\n")
    case.build()
    case.image("why-app:1", f"FROM {BASE}\nRUN echo two > /release\n")
    case.build()


@cause
def another_base_image(case: Case) -> None:
    case.image("why-lib:1", f"FROM {BASE}\nRUN echo lib one > /release\n")
    case.image("why-lib:2", f"FROM {BASE}\nRUN echo lib two > /release\n")
    case.dockerfile("FROM why-lib:1\nRUN cat /release > /x\n")
    case.build()
    case.dockerfile("FROM why-lib:2\nRUN cat /release > /x\n")
    case.build()


@cause
def base_that_was_built_before(case: Case) -> None:
    """Both bases are known; only what stands on them is not."""
    for version in (1, 2):
        case.image(f"why-known:{version}", f"FROM {BASE}\nRUN echo {version} > /known\n")
        case.dockerfile(f"FROM why-known:{version}\nRUN true\n")
        case.build()
    case.dockerfile("FROM why-known:1\nRUN cat /known > /x\n")
    case.build()
    case.dockerfile("FROM why-known:2\nRUN cat /known > /x\n")
    case.build()


@cause
def files_of_a_scratch_stage(case: Case) -> None:
    case.write("t")
    case.dockerfile(f"FROM scratch AS tool\nCOPY t /t\nFROM {BASE}\nCOPY --from=tool /t /\nRUN true\n")
    case.build()
    case.write("t", "tool two\n")
    case.build()


@cause
def platform(case: Case) -> None:
    shutil.copy(find_busybox(), case.context / "busybox")
    case.dockerfile(
        "ARG WHERE=linux/amd64\nFROM --platform=$WHERE scratch\nCOPY busybox /bin/busybox\n"
        'RUN ["/bin/busybox", "touch", "/x"]\n'
    )
    case.build()
    case.build(build_args={"WHERE": "linux/386"})


# -- steps come and go


@cause
def step_inserted(case: Case) -> None:
    edited(case, "RUN echo a > /a\nRUN echo c > /c\n", "RUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c\n")


@cause
def step_removed(case: Case) -> None:
    edited(case, "RUN echo a > /a\nRUN echo b > /b\nRUN echo c > /c\n", "RUN echo a > /a\nRUN echo c > /c\n")


@cause
def steps_swapped(case: Case) -> None:
    edited(case, "RUN echo a > /a\nRUN echo b > /b\n", "RUN echo b > /b\nRUN echo a > /a\n")


@cause
def step_appended(case: Case) -> None:
    edited(case, "RUN echo a > /a\n", "RUN echo a > /a\nRUN echo b > /b\n")


@cause
def step_became_another_kind(case: Case) -> None:
    case.write("a")
    edited(case, "COPY a /a\nRUN sync\n", "RUN touch /a\nRUN sync\n")


# -- asked for


@cause
def no_cache(case: Case) -> None:
    case.dockerfile(COPIES)
    case.write("app/a")
    case.build()
    case.build(no_cache=True)


@cause
def no_cache_filter(case: Case) -> None:
    case.dockerfile(
        f"FROM {BASE} AS deps\nRUN date +%N > /deps\nFROM {BASE} AS app\nCOPY --from=deps /deps /\nRUN true\n"
    )
    case.build()
    case.build(no_cache_filter=["deps"])


# -- no record


@cause
def first_build(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN echo never seen before > /x\n")
    case.build()


@cause
def same_step_of_another_project(case: Case) -> None:
    other = Case(_made(case.folder / "other"), case.root)
    case.root = other.root
    other.dockerfile(f"FROM {BASE}\nENV STAMP=1\nRUN echo shared step > /x\n")
    other.build()
    case.context = case.context.rename(case.folder / "elsewhere")
    case.dockerfile(f"FROM {BASE}\nENV STAMP=2\nRUN echo shared step > /x\n")
    case.build()


@cause
def another_checkout(case: Case) -> None:
    other = Case(_made(case.folder / "first"), case.root)
    case.root = other.root
    for here in (other, case):
        here.context = here.context.rename(here.context.with_name("checkout"))
        here.dockerfile(COPIES)
        here.write("app/a", f"{here is other}\n")
        here.build()
    case.last = _without_path(case.last, str(other.context))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _without_path(result: BuildResult, path: str) -> BuildResult:
    from dataclasses import replace

    told = [replace(one, sentence=one.sentence.replace(path, "PATH")) for one in result.explanations]
    return replace(result, explanations=tuple(told))


@cause
def pruned(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN echo a > /x\n")
    case.build()
    prune(Environment(case.root), everything=True)
    case.build()


@cause
def pruned_and_changed(case: Case) -> None:
    """What the record was made of is remembered longer than its result."""
    case.dockerfile(COPIES)
    case.write("app/a", "one\n")
    case.build()
    prune(Environment(case.root), everything=True)
    case.write("app/a", "two\n")
    case.build()


@cause
def exact_modes_asked(case: Case) -> None:
    """One file counts alike by both rules; only the rule is told."""
    case.write("app/a")
    case.dockerfile(f"FROM {BASE}\nCOPY app /app\nRUN echo modes > /x\n")
    case.build()
    case.build(exact_modes=True)


@cause
def exact_modes_left_out_and_a_file_edited(case: Case) -> None:
    (case.context / "app").mkdir(mode=0o775)
    (case.context / "app").chmod(0o775)
    case.write("app/a", mode=0o664)
    case.write("app/b", mode=0o664)
    case.dockerfile(f"FROM {BASE}\nCOPY app /app\n")
    case.build(exact_modes=True)
    case.write("app/b", "edited\n", mode=0o664)
    case.build()


@cause
def result_gone(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN echo result that goes > /x\n")
    case.build()
    case.edit("DELETE FROM key WHERE node = (SELECT max(id) FROM node); DELETE FROM memo;")
    case.build()


@cause
def failed_before(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\n")
    case.fail()
    case.build(secrets={"s": b"value"})


@cause
def never_reached(case: Case) -> None:
    case.dockerfile(f"FROM {BASE}\nRUN --mount=type=secret,id=s cp /run/secrets/s /s\nRUN echo after > /x\n")
    case.fail()
    case.build(secrets={"s": b"value"})


@cause
def cancelled_before(case: Case) -> None:
    case.dockerfile(
        f"FROM {BASE}\nRUN --mount=type=secret,id=go,required=false "
        "[ -e /run/secrets/go ] || { echo waiting; sleep 300; }\n"
    )
    cancel = Cancel()

    def stop(event: Event) -> None:
        if isinstance(event, LogEvent):
            cancel.cancel()

    try:
        case.build(progress=stop, cancel=cancel)
    except CancelledError:
        pass
    case.build(secrets={"go": b"yes"})


@cause
def key_version(case: Case) -> None:
    """An older Lamina left the records: its keys and the version in its parts are others."""
    case.dockerfile(f"FROM {BASE}\nRUN echo versions > /x\n")
    case.build()
    case.edit(
        "UPDATE key SET key = 'old' || key; UPDATE node SET parts = replace(parts, 'lamina.key.v2', 'lamina.key.v0');"
        "UPDATE step SET canon = 'old' || canon, exact = 'old' || exact, definition = 'old' || definition;"
        "DELETE FROM memo WHERE key LIKE 'build:%';"
    )
    case.build()


def needed_programs() -> list[str]:
    """Return what is missing here, for a skip."""
    return [name for name in ("crun", "git") if shutil.which(name) is None] + (["root"] if os.geteuid() else [])
