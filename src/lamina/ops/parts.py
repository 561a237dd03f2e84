"""What the digest of an op is made of, as plain values: kept with a record, so that a miss can be told as a sentence.

In: `pb.Op`. Out: JSON values. Every field of the op that counts in its key has a part here; no secret has one (an op
holds ids of secrets, never values). Pure.
"""

from __future__ import annotations

import hashlib
from typing import Any

_NETWORKS = {0: "default", 1: "host", 2: "none"}
_MOUNTS = {0: "bind", 1: "secret", 2: "ssh", 3: "cache", 4: "tmpfs"}
_SHARING = {0: "shared", 1: "private", 2: "locked"}
_COPY_FLAGS = (
    ("followSymlink", "follow links"),
    ("dirCopyContents", "contents of directories"),
    ("attemptUnpackDockerCompatibility", "unpack"),
    ("createDestPath", "make parents"),
    ("allowWildcard", "wildcards"),
    ("allowEmptyWildcard", "empty wildcards"),
    ("alwaysReplaceExistingDestPaths", "replace"),
)


def exec_parts(op: Any) -> dict[str, Any]:
    """Return the parts of an ExecOp."""
    run, meta = op.exec, op.exec.meta
    return {
        "kind": "exec",
        "args": list(meta.args),
        "env": list(meta.env),
        "cwd": meta.cwd,
        "user": meta.user,
        "mounts": {mount.dest: _mount(mount) for mount in run.mounts},
        "secret_env": {item.name: _optional(f"id={item.ID}", item.optional) for item in run.secretenv},
        "network": _NETWORKS.get(run.network, str(run.network)),
        "security": "insecure" if run.security == 1 else "sandbox",
        "hostname": meta.hostname,
        "hosts": {entry.Host: entry.IP for entry in meta.extraHosts},
        "ulimits": {limit.Name: f"{limit.Soft}:{limit.Hard}" for limit in meta.ulimit},
        "cgroup_parent": meta.cgroupParent,
        "stubs": bool(meta.removeMountStubsRecursive),
        "exit_codes": list(meta.validExitCodes),
        "platform": _platform(op),
    }


def file_parts(op: Any) -> dict[str, Any]:
    """Return the parts of a FileOp."""
    return {
        "kind": "file",
        "actions": [_action(action) for action in op.file.actions],
        "platform": _platform(op),
    }


def _mount(mount: Any) -> str:
    """Return a mount as a Dockerfile would have it."""
    kind = _MOUNTS.get(mount.mountType, str(mount.mountType))
    words = [f"type={kind}"]
    if kind == "cache":
        words += [f"id={mount.cacheOpt.ID}", f"sharing={_SHARING.get(mount.cacheOpt.sharing, '')}"]
    elif kind == "tmpfs" and mount.TmpfsOpt.size:
        words.append(f"size={mount.TmpfsOpt.size}")
    elif kind in ("secret", "ssh"):
        option = mount.secretOpt if kind == "secret" else mount.SSHOpt
        words += [_optional(f"id={option.ID}", option.optional)]
        words.append(f"uid={option.uid},gid={option.gid},mode={option.mode:04o}")
    if mount.selector:
        words.append(f"source={mount.selector}")
    if mount.readonly:
        words.append("readonly")
    if mount.contentCache:
        words.append(f"content-cache={mount.contentCache}")
    return ",".join(words)


def _optional(text: str, optional: bool) -> str:
    return f"{text},optional" if optional else text


def _action(action: Any) -> dict[str, Any]:
    """Return one action; what is not set is left out."""
    kind = action.WhichOneof("action")
    what: Any = getattr(action, kind) if kind else None
    found: dict[str, Any] = {"do": kind or ""}
    if kind == "copy":
        found |= _copy(what)
    elif kind == "symlink":
        found |= {"src": what.oldpath, "dest": what.newpath}
    elif kind is not None:
        found["dest"] = what.path
    if kind in ("mkdir", "mkfile"):
        found["mode"] = f"{what.mode & 0o7777:04o}"
    if kind == "mkfile":
        found["data"] = hashlib.sha256(what.data).hexdigest()[:16]
    if kind == "mkdir":
        found["flags"] = ["make parents"] if what.makeParents else []
    if kind == "rm":
        flags = (("allowNotFound", "may be missing"), ("allowWildcard", "wildcards"))
        found["flags"] = [name for field, name in flags if getattr(what, field)]
    if kind in ("copy", "mkdir", "mkfile", "symlink") and what.HasField("owner"):
        found["owner"] = _owner(what.owner)
    if kind in ("copy", "mkdir", "mkfile", "symlink") and what.timestamp != -1:
        found["time"] = what.timestamp
    return found


def _copy(copy: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"src": copy.src, "dest": copy.dest}
    if copy.modeStr or copy.mode != -1:
        found["mode"] = copy.modeStr or f"{copy.mode & 0o7777:04o}"
    for field, name in (("include_patterns", "include"), ("exclude_patterns", "exclude"), ("required_paths", "need")):
        if getattr(copy, field):
            found[name] = list(getattr(copy, field))
    found["flags"] = [name for field, name in _COPY_FLAGS if getattr(copy, field)]
    return found


def _owner(owner: Any) -> str:
    user, group = _account(owner.user), _account(owner.group) if owner.HasField("group") else ""
    return f"{user}:{group}" if group else user


def _account(user: Any) -> str:
    return str(user.byName.name) if user.WhichOneof("user") == "byName" else str(user.byID)


def _platform(op: Any) -> str:
    if not op.HasField("platform"):
        return ""
    platform = op.platform
    return "/".join(part for part in (platform.OS, platform.Architecture, platform.Variant) if part)
