"""`docker import`: an archive of files becomes an image of one layer.

It is the image that `FROM scratch`, `ADD archive.tar /` and the changes asked for make, and that is how it is made.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from lamina.api.pb import control_pb2
from lamina.daemon.docker.builds import Builder
from lamina.daemon.docker.failures import ApiError
from lamina.daemon.docker.images import named
from lamina.daemon.docker.lines import Lines
from lamina.daemon.docker.routes import Request
from lamina.daemon.docker.uploads import Unpacked, spooled
from lamina.engine.options import Environment
from lamina.errors import NotYetError
from lamina.oci.platform import Platform

_ALLOWED = frozenset(
    ["cmd", "entrypoint", "env", "expose", "healthcheck", "label", "onbuild", "stopsignal", "user", "volume", "workdir"]
)  # what changes an image without a step
_ARCHIVE = "archive.tar"
_MAX_CHANGES = 100


def import_image(environment: Environment, builder: Builder, request: Request) -> None:
    """Make an image of the archive that is the body of a request, and tell its ID.

    Raises:
        Error: it is no archive, or a change is none.
    """
    query = request.query
    if query.text("fromSrc") != "-":
        raise NotYetError("importing from a URL", hint="download it, and give the archive")
    solve = control_pb2.SolveRequest(Ref=secrets.token_hex(13), Frontend="dockerfile.v0")
    exporter = solve.Exporters.add(Type="moby")
    if query.text("repo"):
        exporter.Attrs["name"] = str(named(query.text("repo"), query.text("tag")))
    if query.text("platform"):
        solve.FrontendAttrs["platform"] = str(Platform.parse(query.text("platform")))
    text = dockerfile(query.texts("changes"))
    with request.exchange.gone() as cancel, spooled(request.exchange, environment.root, _ARCHIVE) as directory:
        (directory / "Dockerfile").write_text(text, "utf-8")
        with request.exchange.stream("application/json") as stream:
            lines = Lines(stream)
            try:
                answer = builder.solve(solve, cancel, side=lambda session: Unpacked(session, directory, {}))
            except Exception as error:
                lines.error(error)
                return
            lines.status(answer.ExporterResponse["containerimage.config.digest"])


def dockerfile(changes: Sequence[str]) -> str:
    """Return the Dockerfile for an import. Pure.

    Raises:
        ApiError: a change would run something, or is more than one instruction.
    """
    if len(changes) > _MAX_CHANGES:
        raise ApiError(400, f"more than {_MAX_CHANGES} changes")
    lines = ["FROM scratch", f"ADD {_ARCHIVE} /"]
    for change in changes:
        word = change.split(maxsplit=1)[0].lower() if change.strip() else ""
        if word not in _ALLOWED or "\n" in change or "\r" in change or change.rstrip().endswith("\\"):
            raise ApiError(400, f"{change[:80]!r} is not a valid change command")
        lines.append(change)
    return "\n".join([*lines, ""])
