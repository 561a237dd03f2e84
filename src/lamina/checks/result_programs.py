"""Whether programs fit the image: its processor, its libc, its libraries, its certificates.

In: an `ImageView` and ELF programs: those that the image starts, and some that the build added. Out: troubles. See
`libraries` for how loaders search.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from lamina.checks.libraries import Libraries, Missing
from lamina.checks.result_start import Started
from lamina.checks.result_view import ImageView, Trouble
from lamina.elf import EXECUTABLE, SHARED, Elf
from lamina.layer.program import Program

MAX_OTHERS = 40
"""Programs looked at beside those that the image starts."""
MAX_TOLD = 3
"""Of these, how many troubles of one rule are told in full."""
_MAX_NAMES = 6

_ALSO_RUNS = {"amd64": {"386"}, "arm64": {"arm"}, "ppc64": {"ppc"}, "s390x": {"s390"}, "mips64": {"mips"}}
_PACKAGES = {
    "libatomic.so": "libatomic1 (Debian), libatomic (Alpine)",
    "libcurl.so": "libcurl4 (Debian), libcurl (Alpine)",
    "libexpat.so": "libexpat1 (Debian), expat (Alpine)",
    "libffi.so": "libffi8 (Debian), libffi (Alpine)",
    "libgcc_s.so": "libgcc-s1 (Debian), libgcc (Alpine)",
    "libGL.so": "libgl1 (Debian), mesa-gl (Alpine)",
    "libglib-2.0.so": "libglib2.0-0 (Debian), glib (Alpine)",
    "libgomp.so": "libgomp1 (Debian), libgomp (Alpine)",
    "libjpeg.so": "libjpeg62-turbo (Debian), libjpeg-turbo (Alpine)",
    "libmariadb.so": "libmariadb3 (Debian), mariadb-connector-c (Alpine)",
    "libpng16.so": "libpng16-16 (Debian), libpng (Alpine)",
    "libpq.so": "libpq5 (Debian), libpq (Alpine)",
    "libsqlite3.so": "libsqlite3-0 (Debian), sqlite-libs (Alpine)",
    "libssl.so": "libssl3 (Debian), libssl3 (Alpine)",
    "libcrypto.so": "libssl3 (Debian), libcrypto3 (Alpine)",
    "libstdc++.so": "libstdc++6 (Debian), libstdc++ (Alpine)",
    "libxml2.so": "libxml2 (Debian), libxml2 (Alpine)",
    "libyaml-0.so": "libyaml-0-2 (Debian), yaml (Alpine)",
    "libz.so": "zlib1g (Debian), zlib (Alpine)",
}
_BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ssl/ca-bundle.pem",
    "etc/pki/tls/cacert.pem",
    "etc/ssl/cert.pem",
)
_BUNDLE_FOLDERS = ("etc/ssl/certs", "etc/pki/tls/certs", "system/etc/security/cacerts")
_BUNDLE_SETTINGS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE")


class Programs:
    """Checks programs of one image, each path once."""

    def __init__(self, image: ImageView) -> None:
        self._image = image
        self._libraries = Libraries(image)
        self._seen: set[str] = set()

    def started(self, programs: list[Started]) -> Iterator[Trouble]:
        """Yield what is wrong with the programs that the image starts."""
        for found in programs:
            if found.path in self._seen:
                continue
            about = found.command.about
            wrong = list(self._program(found.path, found.program, about))
            yield from wrong
            if not wrong and about != "HEALTHCHECK":
                yield from self._certificates(found)

    def others(self) -> Iterator[Trouble]:
        """Yield what is wrong with other programs that the build added, the first few of each rule."""
        told: dict[str, int] = {}
        folders = frozenset(self._image.place(self._image.absolute(path)).path for path in self._image.search_path)
        number = 0
        for path in self._image.tree.own_programs(folders):
            number += 1
            if number > MAX_OTHERS:
                return
            program = self._image.tree.program(path, aside=True)
            if path in self._seen or program is None or program.elf is None or not _is_program(program.elf):
                continue
            for trouble in self._program(path, program, ""):
                told[trouble.rule] = told.get(trouble.rule, 0) + 1
                if told[trouble.rule] <= MAX_TOLD:
                    yield trouble

    def _program(self, path: str, program: Program, about: str) -> Iterator[Trouble]:
        self._seen.add(path)
        elf = program.elf
        if elf is None:
            return
        who = f"/{path}" if not about else f"{about}: /{path}"
        wanted = self._image.platform.architecture
        if elf.architecture != wanted and elf.architecture not in _ALSO_RUNS.get(wanted, ()):
            yield Trouble(
                "WrongArchitecture",
                f"{who} is built for {elf.architecture}, the image for {self._image.platform}: build it in a stage of "
                "the target's platform, or cross-compile for $TARGETARCH",
                about,
                (f"Go: GOARCH=$TARGETARCH; downloads: take the file for {wanted}",),
            )
        elif elf.interpreter and not self._image.place(elf.interpreter).is_file:
            if not self._image.from_outside(elf.interpreter):
                yield self._loader(who, elf, about)
        elif missing := self._libraries.missing(path, elf):
            yield _library_trouble(who, path, missing, about)

    def _loader(self, who: str, elf: Elf, about: str) -> Trouble:
        """Say why there is no loader."""
        has = self._libc()
        musl = posixpath.basename(elf.interpreter).startswith("ld-musl-")
        wants = "musl" if musl else "glibc"
        detail = (f"when it is run the kernel says 'no such file or directory', which means {elf.interpreter}",)
        if has and has != wants and (musl or _is_glibc(elf.interpreter)):
            base = "a Debian or Ubuntu stage" if musl else "an Alpine stage"
            run = "an Alpine base" if musl else "a glibc base such as debian:stable-slim"
            return Trouble(
                "LibcMismatch",
                f"{who} is built on {wants}, the image runs {has}: build it in {base}, link it statically "
                f"(Go: CGO_ENABLED=0), or use {run}",
                about,
                (*detail, *(("on Alpine, the package gcompat runs simple glibc programs",) if not musl else ())),
            )
        base = "alpine" if musl else "debian:stable-slim or distroless"
        return Trouble(
            "LoaderMissing",
            f"{who} is linked dynamically but its loader {elf.interpreter} is not in the image: link it statically "
            f"(Go: CGO_ENABLED=0; C: -static), or use a base with {wants} such as {base}",
            about,
            detail,
        )

    def _libc(self) -> str:
        """Return the libc that the image has: "musl", "glibc", or ""."""
        names = {
            name
            for folder in ("/lib", "/lib64", "/usr/lib64")
            for name in self._image.tree.children(self._image.place(folder).path)
            if name.startswith(("ld-", "ld64.", "ld."))
        }
        if any(_is_glibc(name) for name in names):
            return "glibc"
        return "musl" if any(name.startswith("ld-musl-") for name in names) else ""

    def _certificates(self, found: Started) -> Iterator[Trouble]:
        """Say when a program looks for the system's certificates and there are none."""
        elf = found.program.elf
        if not found.program.wants_trust or elf is None or self._has_certificates():
            return
        yield Trouble(
            "CertificatesMissing",
            f"{found.command.about}: /{found.path} looks for the system's CA certificates and the image has none: "
            "install ca-certificates, or COPY --from=BUILD_STAGE /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/",
            found.command.about,
            ("HTTPS requests will fail: 'certificate signed by unknown authority'; a program that makes none is fine",),
        )

    def _has_certificates(self) -> bool:
        image = self._image
        if any(image.env.get(name) for name in _BUNDLE_SETTINGS):
            return True
        if any((place := image.place(path)).is_file and place.entry and place.entry.size for path in _BUNDLES):
            return True
        return any(
            image.tree.children(image.place(folder).path) or image.from_outside(folder) for folder in _BUNDLE_FOLDERS
        )


def _library_trouble(who: str, path: str, missing: list[Missing], about: str) -> Trouble:
    names = ", ".join(item.name for item in missing[:_MAX_NAMES])
    more = f" and {len(missing) - _MAX_NAMES} more" if len(missing) > _MAX_NAMES else ""
    detail = []
    for item in missing[:_MAX_NAMES]:
        package = _PACKAGES.get(item.name.partition(".so")[0] + ".so")
        wanted_by = f", wanted by /{item.wanted_by}" if item.wanted_by != path else ""
        if package or wanted_by:
            detail.append(f"{item.name}{wanted_by}{': in ' + package if package else ''}")
    return Trouble(
        "LibraryMissing",
        f"{who} needs {names}{more}, which its loader would not find in the image: install what brings it in the "
        "final stage, copy it to /usr/local/lib, or link statically",
        about,
        tuple(detail),
    )


def _is_glibc(loader: str) -> bool:
    """Tell glibc's loader by its name."""
    return posixpath.basename(loader).startswith(("ld-linux", "ld64.so", "ld.so.1"))


def _is_program(elf: Elf) -> bool:
    """Tell a program from a library: it names a loader, or is fixed to an address."""
    return elf.type == EXECUTABLE or (elf.type == SHARED and bool(elf.interpreter))
