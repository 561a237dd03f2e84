"""Image configs: how to run an image, what its layers are, where they come from (image-spec config.md).

Bytes in, a value out. `raw` is the truth and `fields` the whole JSON object, so that what we do not know is kept
when a child image is made of it. Bounds are checked for what we read; unknown fields pass. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lamina.errors import InputError
from lamina.oci.digest import Digest, sha256_digest
from lamina.oci.platform import Platform
from lamina.oci.strict_json import MAX_BYTES, dump_json, parse_object

MAX_CONFIG_BYTES = MAX_BYTES

_LISTS = ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild")
_OBJECTS = ("Labels", "Volumes", "ExposedPorts", "Healthcheck")
_TEXTS = ("User", "WorkingDir", "StopSignal", "Hostname", "Domainname", "Image")


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """A parsed image config; read only, do not change `fields`.

    Attributes:
        raw: the exact bytes; their digest is the image ID.
        fields: the JSON object with all its fields.
        diff_ids: digests of the uncompressed layers, bottom first.
        platform: what it runs on, in normal form.
    """

    raw: bytes = field(repr=False)
    fields: Mapping[str, Any] = field(repr=False, hash=False)
    diff_ids: tuple[Digest, ...]
    platform: Platform

    @property
    def digest(self) -> Digest:
        """The image ID."""
        return sha256_digest(self.raw)

    @property
    def run(self) -> Mapping[str, Any]:
        """The `config` object: Env, Cmd, User and so on; empty when there is none."""
        return self.fields.get("config") or {}

    @property
    def env(self) -> tuple[str, ...]:
        """`NAME=value` settings in order."""
        return tuple(self.run.get("Env") or ())

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """One object per step, oldest first."""
        return tuple(self.fields.get("history") or ())

    @property
    def created(self) -> str:
        """RFC 3339 time as the config has it, "" when it has none."""
        value = self.fields.get("created")
        return value if isinstance(value, str) else ""

    def check_layers(self, count: int, where: str = "") -> None:
        """Raise `InputError` unless there is exactly one diffID for each of `count` layers."""
        if len(self.diff_ids) != count:
            raise InputError(
                f"the config names {len(self.diff_ids)} diffIDs, the manifest {count} layers",
                where=where,
                hint="the image is broken: build or pull it again",
            )


def parse_config(raw: bytes, where: str = "") -> ImageConfig:
    """Parse an image config.

    Raises:
        InputError: too large, not JSON, ambiguous, or a field that we read has the wrong type.
    """
    obj = parse_object(raw, where, max_bytes=MAX_CONFIG_BYTES)
    texts = [obj.get(key, "") for key in ("os", "architecture", "variant", "os.version")]
    if not all(isinstance(text, str) for text in texts):
        raise InputError("the platform of an image config must be text", where=where)
    _check_run(obj.get("config"), where)
    history = obj.get("history")
    if history is not None and not (isinstance(history, list) and all(isinstance(row, dict) for row in history)):
        raise InputError("history must be a list of objects", where=where)
    os_name, architecture, variant, os_version = texts
    platform = Platform.normal(os_name or "linux", architecture, variant, os_version)
    return ImageConfig(raw, obj, _diff_ids(obj, where), platform)


def dump_config(fields: Mapping[str, Any]) -> bytes:
    """Return the bytes of a config object; equal objects give equal bytes, whatever the order of their keys."""
    return dump_json(dict(fields), sort=True)


def _diff_ids(obj: Mapping[str, Any], where: str) -> tuple[Digest, ...]:
    """Return the checked diffIDs of the config's rootfs."""
    rootfs = obj.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type", "layers") != "layers":
        raise InputError("an image config must have a rootfs of type 'layers'", where=where)
    values = rootfs.get("diff_ids")
    if values is None:
        values = []
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError("diff_ids must be a list of digests", where=where)
    return tuple(Digest(value) for value in values)


def _check_run(run: Any, where: str) -> None:
    """Check the types of the fields of `config` that builds and runs read."""
    if run is None:
        return
    if not isinstance(run, dict):
        raise InputError("config must be an object", where=where)
    for key in _LISTS:
        value = run.get(key)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            raise InputError(f"{key} must be a list of text", where=where)
    for key in _OBJECTS:
        if not isinstance(run.get(key), dict | None):
            raise InputError(f"{key} must be an object", where=where)
    labels = run.get("Labels") or {}
    if not all(isinstance(value, str) for value in labels.values()):
        raise InputError("Labels must map text to text", where=where)
    for key in _TEXTS:
        if not isinstance(run.get(key), str | None):
            raise InputError(f"{key} must be text", where=where)
