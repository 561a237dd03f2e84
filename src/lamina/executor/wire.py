"""How a step is written down for the helper: one JSON header, then the bytes that must never be on disk.

Layout of a request: 8 bytes length of the header (big endian), the header, then the blobs end to end. It travels in
a sealed-off memory file whose descriptor is sent over the control socket together with the step's own socket, the
two output pipes and, if there is any input, the pipe it comes from. The answer is one JSON message on the step's
socket; before it, a message with a descriptor brings the step's terminal. The other way, a message is a signal.
Pure: values in, bytes out. The helper imports this module, so it imports nothing but json.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lamina.executor.step import Rootfs, Step, StepMount

    Json = dict[str, Any]

CONTROL_FD = 3  # where the helper finds its control socket
MAX_HEADER_BYTES = 64 << 20
SIGWINCH = 28
_LENGTH_BYTES = 8
_SIGNAL = b"signal "


def encode_request(step: Step, config: dict[str, object]) -> bytes:
    """Return the request for a step with its runtime-spec config."""
    from dataclasses import asdict

    blobs: list[bytes] = []
    mounts = [_mount(mount, blobs) for mount in step.mounts]
    for target, data in (("/etc/resolv.conf", step.resolv_conf), ("/etc/hosts", step.hosts)):
        if data is not None:
            blobs.append(data)
            # First in the list: a mount that the user puts at the same place is seen instead.
            mounts.insert(0, _file(target, len(blobs) - 1))
    header = {
        "config": config,
        "rootfs": _rootfs(step.rootfs),
        "mounts": mounts,
        "blobs": [len(blob) for blob in blobs],
        "nodev": step.security != "insecure",
        "cgroup_parent": step.cgroup_parent,
        "limits": asdict(step.limits) if step.limits is not None else None,
        "terminal": step.terminal,
        "window": step.window,
        "name": step.name,
        "joins": step.joins,
    }
    text = json.dumps(header).encode("ascii")
    return b"".join([len(text).to_bytes(_LENGTH_BYTES, "big"), text, *blobs])


def decode_request(data: bytes) -> tuple[Json, list[bytes]]:
    """Return header and blobs of a request.

    Raises:
        ValueError: the parts do not add up.
    """
    length = int.from_bytes(data[:_LENGTH_BYTES], "big")
    if length > min(MAX_HEADER_BYTES, len(data) - _LENGTH_BYTES):
        raise ValueError("a step's request is cut off")
    at = _LENGTH_BYTES + length
    header: Json = json.loads(data[_LENGTH_BYTES:at])
    blobs = []
    for size in header["blobs"]:
        blobs.append(data[at : at + size])
        at += size
    if at != len(data):
        raise ValueError("a step's request is cut off")
    return header, blobs


def dump_signal(number: int) -> bytes:
    """Return the message that hands a signal to a step."""
    return _SIGNAL + str(number).encode("ascii")


def parse_signal(data: bytes) -> int:
    """Return the number in such a message, 0 for anything else."""
    word = data.removeprefix(_SIGNAL)
    return int(word) if len(word) < len(data) and word.isdigit() and 0 < int(word) <= 64 else 0


def dump_config(config: Json) -> bytes:
    """Return config.json; names that are not text go out as the bytes they were."""
    return json.dumps(config, ensure_ascii=False).encode("utf-8", "surrogateescape")


def _rootfs(rootfs: Rootfs) -> Json:
    return {
        "lowers": list(rootfs.lowers),
        "upper": rootfs.upper,
        "work": rootfs.work,
        "userxattr": rootfs.userxattr,
    }


def _mount(mount: StepMount, blobs: list[bytes]) -> Json:
    values: Json = {
        "kind": mount.kind,
        "target": mount.target,
        "source": mount.source,
        "subpath": mount.subpath,
        "readonly": mount.readonly,
        "size": mount.size_bytes,
        "mode": mount.mode,
        "uid": mount.uid,
        "gid": mount.gid,
        "flags": None if mount.flags is None else list(mount.flags),
    }
    if mount.rootfs is not None:
        values["rootfs"] = _rootfs(mount.rootfs)
    if mount.kind == "secret":
        blobs.append(mount.data)
        values["blob"] = len(blobs) - 1
    return values


def _file(target: str, blob: int) -> Json:
    """A small file from memory that everybody may read."""
    return {"kind": "file", "target": target, "blob": blob, "readonly": True, "mode": 0o644, "uid": 0, "gid": 0}
