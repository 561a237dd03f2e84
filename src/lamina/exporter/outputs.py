"""`--output`: what docker and buildx users write there, as values.

    parse_output("type=oci,dest=app.tar,compression=zstd")
    parse_output("out")      # a directory: type=local,dest=out
    parse_output("-")        # type=tar to standard output

One value is one CSV record of `key=value` fields, so that a field with a comma is written `"dest=a,b"`. A key that
the type does not know is an error, never ignored. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lamina.errors import InputError, NotYetError
from lamina.oci.media_types import COMPRESSIONS
from lamina.oci.reference import Reference

TYPES = ("image", "registry", "oci", "docker", "tar", "local")
STDOUT = "-"

_LAYER_KEYS = {
    *("compression", "compression-level", "force-compression", "oci-mediatypes", "annotation"),
    *("oci-artifact", "attestation-inline"),
}
_KEYS: dict[str, set[str]] = {
    "image": {
        "name", "push", "push-by-digest", "registry.insecure", "dangling-name-prefix", "store", "unpack", *_LAYER_KEYS,
    },
    "oci": {"name", "dest", "tar", *_LAYER_KEYS},
    "docker": {"name", "dest", "tar", *_LAYER_KEYS},
    "tar": {"dest", "attestation-prefix", "platform-split"},
    "local": {"dest", "attestation-prefix", "platform-split", "mode"},
}  # fmt: skip
_NOT_YET = {
    "name-canonical", "danging-name-empty-only", "prefer-nondist-layers", "rewrite-timestamp", "compatibility-version",
    "context", "buildinfo", "source-date-epoch",
}  # fmt: skip
_LEVELS = {"gzip": range(10), "zstd": range(1, 23)}


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """One output that was asked for.

    Attributes:
        type: `image`, `oci`, `docker`, `tar` or `local`; `registry` has become `image` with `push`.
        dest: path as the user wrote it, "-" for standard output, "" where none was given or none belongs.
        names: full references, besides those of `--tag`.
        tar: for `oci` and `docker`: an archive, not a directory.
        push: push to the names' registries.
        store: keep the image in the local store.
        push_by_digest: push without setting a tag.
        insecure: the registries may show any certificate or speak plain http.
        dangling_prefix: name (without tag) for an image that has none, "" for none.
        compression: `gzip`, `zstd`, `uncompressed`, "" to leave layers as they are and make new ones as usual.
        level: compression level, None for the usual one.
        force: convert layers of base images too.
        media_types: `oci` or `docker`; `docker_asked`: the user said so.
        annotations: for each manifest.
        oci_artifact: attestations are OCI artifacts; None: unless the media types are docker's.
        attestation_inline: take attestations that are for images only as well.
        attestation_prefix: for the names of attestations in outputs of files.
        platform_split: each platform's files lie in a directory of their own; None: when there are several.
        delete: what is in the directory and not in the result goes.
    """

    type: str
    dest: str = ""
    names: tuple[str, ...] = ()
    tar: bool = True
    push: bool = False
    store: bool = True
    push_by_digest: bool = False
    insecure: bool = False
    dangling_prefix: str = ""
    compression: str = ""
    level: int | None = None
    force: bool = False
    media_types: str = "oci"
    docker_asked: bool = False
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    oci_artifact: bool | None = None
    attestation_inline: bool = False
    attestation_prefix: str = ""
    platform_split: bool | None = None
    delete: bool = False

    @property
    def files_wanted(self) -> bool:
        """Whether the output takes the merged files and no layers."""
        return self.type in ("tar", "local")

    @property
    def directory(self) -> bool:
        """Whether `dest` is a directory."""
        return self.type == "local" or (self.type in ("oci", "docker") and not self.tar)


def parse_output(text: str) -> OutputSpec:
    """Return what one `--output` value asks for.

    Raises:
        InputError: unknown type or key, bad value, missing destination; the message says which and what is known.
        NotYetError: a key that buildx knows and Lamina not yet.
    """
    fields = _split(text)
    if len(fields) == 1 and not fields[0].startswith("type="):
        return _from_path(fields[0], text)
    pairs: list[tuple[str, str]] = []
    for part in fields:
        key, equals, value = part.partition("=")
        if not equals:
            raise InputError(f"--output: expected key=value, got {part!r} in {text!r}")
        pairs.append((key.strip().lower(), value))
    kind = _only(pairs, "type", text)
    if kind is None:
        raise InputError(f"--output: no type in {text!r}", hint=f"type= is one of {', '.join(TYPES)}")
    if kind not in TYPES:
        raise InputError(f"--output: unknown type {kind!r}", hint=f"known types: {', '.join(TYPES)}")
    return _build(kind, [pair for pair in pairs if pair[0] != "type"], text)


def _split(text: str) -> list[str]:
    """Return the fields of the CSV record."""
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as exc:
        raise InputError(f"--output: {exc} in {text!r}") from None
    if not rows or not any(rows[0]):
        raise InputError("--output needs a value", hint="such as type=oci,dest=app.tar, or a directory")
    return rows[0]


def _from_path(path: str, text: str) -> OutputSpec:
    """Return the output for a value that is nothing but a path."""
    key = path.partition("=")[0].strip().lower()
    if "=" in path and key in {known for keys in _KEYS.values() for known in keys} | _NOT_YET:
        raise InputError(f"--output: no type in {text!r}", hint=f"type= is one of {', '.join(TYPES)}")
    if path == STDOUT:
        return OutputSpec("tar", STDOUT)
    return OutputSpec("local", path)


def _build(kind: str, pairs: list[tuple[str, str]], text: str) -> OutputSpec:
    """Check keys and values for the type and return the value."""
    registry = kind == "registry"
    kind = "image" if registry else kind
    annotations = {}
    rest: list[tuple[str, str]] = []
    for key, value in pairs:
        if key.startswith(("annotation.", "annotation-", "annotation[")):
            if "[" in key or key.startswith("annotation-") or not key[11:]:
                raise NotYetError(f"--output {key}=", hint="annotation.KEY=VALUE sets it on the manifests")
            annotations[key[11:]] = value
        else:
            rest.append((key, value))
    _check_keys(kind, rest, text)
    values = {key: _only(rest, key, text) for key, _ in rest if key != "name"}
    spec = OutputSpec(
        type=kind,
        dest=_dest(values, text),
        names=_names([value for key, value in rest if key == "name"]),
        tar=_flag(values, "tar", True),
        push=_flag(values, "push", registry),
        store=_flag(values, "store", not registry),
        push_by_digest=_flag(values, "push-by-digest", False),
        insecure=_flag(values, "registry.insecure", False),
        dangling_prefix=values.get("dangling-name-prefix") or "",
        compression=_compression(values),
        level=_level(values),
        force=_flag(values, "force-compression", False),
        media_types="oci" if _flag(values, "oci-mediatypes", kind != "docker") else "docker",
        docker_asked="oci-mediatypes" in values and not _flag(values, "oci-mediatypes", True),
        annotations=annotations,
        oci_artifact=_flag(values, "oci-artifact", True) if "oci-artifact" in values else None,
        attestation_inline=_flag(values, "attestation-inline", False),
        attestation_prefix=_prefix(values),
        platform_split=_flag(values, "platform-split", True) if "platform-split" in values else None,
        delete=_mode(values),
    )
    if kind == "local" and spec.dest == STDOUT:
        raise InputError("--output: type=local needs a directory", hint="type=tar,dest=- writes to standard output")
    if spec.directory and spec.dest in ("", STDOUT):
        raise InputError(f"--output: a directory needs dest= in {text!r}")
    return spec


def _check_keys(kind: str, pairs: list[tuple[str, str]], text: str) -> None:
    """Raise for the first key that does not belong to the type."""
    for key, _ in pairs:
        if key in _KEYS[kind]:
            continue
        if key in _NOT_YET:
            raise NotYetError(f"--output {key}=")
        raise InputError(
            f"--output: type={kind} has no option {key!r} in {text!r}", hint="known: " + ", ".join(sorted(_KEYS[kind]))
        )


def _dest(values: Mapping[str, str | None], text: str) -> str:
    """Return the destination, "" for none."""
    dest = values.get("dest") or ""
    if "dest" in values and not dest:
        raise InputError(f"--output: dest= is empty in {text!r}")
    return dest


def _mode(values: Mapping[str, str | None]) -> bool:
    """Return whether a directory is to have nothing but the result."""
    mode = (values.get("mode") or "copy").strip().lower()
    if mode not in ("copy", "delete"):
        raise InputError(f"--output: mode= takes copy or delete, not {mode!r}")
    return mode == "delete"


def _prefix(values: Mapping[str, str | None]) -> str:
    """Return the prefix of attestations' names; it is no place to climb out by."""
    prefix = values.get("attestation-prefix") or ""
    if "/" in prefix or "\0" in prefix:
        raise InputError(f"--output: attestation-prefix={prefix!r} is more than the beginning of a name")
    return prefix


def _only(pairs: list[tuple[str, str]], key: str, text: str) -> str | None:
    """Return the value of a key that may be given once."""
    found = [value for name, value in pairs if name == key]
    if len(found) > 1:
        raise InputError(f"--output: {key!r} is given twice in {text!r}")
    return found[0] if found else None


def _flag(values: Mapping[str, str | None], key: str, default: bool) -> bool:
    """Return a yes or no; a key alone (`push=`) is an error."""
    value = values.get(key)
    if value is None:
        return default
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InputError(f"--output: {key}= takes true or false, not {value!r}")


def _compression(values: Mapping[str, str | None]) -> str:
    """Return the checked compression."""
    value = values.get("compression") or ""
    if value in ("estargz", "nydus"):
        raise NotYetError(f"--output compression={value}", hint=f"known: {', '.join(COMPRESSIONS)}")
    if value and value not in COMPRESSIONS:
        raise InputError(f"--output: unknown compression {value!r}", hint=f"known: {', '.join(COMPRESSIONS)}")
    return value


def _level(values: Mapping[str, str | None]) -> int | None:
    """Return the checked compression level."""
    value = values.get("compression-level")
    if value is None:
        return None
    compression = values.get("compression") or "gzip"
    allowed = _LEVELS.get(compression)
    if allowed is None:
        raise InputError(f"--output: compression={compression} has no level")
    if not value.isdecimal() or len(value) > 2 or int(value) not in allowed:
        raise InputError(f"--output: {compression} takes levels {allowed[0]} to {allowed[-1]}, not {value!r}")
    return int(value)


def _names(values: list[str]) -> tuple[str, ...]:
    """Return full references; one value may list several, as buildx takes them."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    for name in names:
        if Reference.parse(name).digest is not None:
            raise InputError(f"--output: a name cannot hold a digest: {name!r}")
    return tuple(str(Reference.parse(name)) for name in names)
