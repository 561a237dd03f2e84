"""COPY and ADD onto a draft, by the rules BuildKit's copier has on a mounted file system.

In: a draft, a view, source and destination texts, options. Out: the draft, changed. The rules, told once:
  * links in the destination are followed inside the root, the last part included; what a trailing "/" ends in is
    made as a directory; a file copied to a directory goes into it under its own name;
  * a directory whose contents are copied leaves an existing destination its mode, owner and xattrs; a new one is
    0755. Directories below it are merged and take the source's mode, owner, times and xattrs;
  * a file replaces a file or a link, never a directory; a directory never replaces anything else - unless
    `always_replace_existing_dest_paths` says so;
  * names that share a file at the source share one at the destination, for each match of the source on its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lamina.errors import InputError
from lamina.layer.entry import Item
from lamina.layer.errors import LayerError
from lamina.layer.recipe_options import CopyOptions, parse_mode
from lamina.layer.recipe_source import Source, Step, find_sources, iter_source
from lamina.layer.union import clean_path, resolve_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lamina.layer.entry import Entry, Xattrs
    from lamina.layer.recipe_draft import Draft
    from lamina.layer.view import View

    Unpack = Callable[[View, Entry], Iterable[Item] | None]
    """Gives the entries of an archive, None when the file is none."""

DIRECTORY_MODE = 0o755


class Copier:
    """One copy action.

    Args:
        draft: what is written to.
        view: what is read from.
        options: how.
        now_ns: modification time of directories that are made.
        serial: a name that no other copy onto this draft has.
        unpack: reads archives; needed for `attempt_unpack`.
    """

    def __init__(
        self,
        draft: Draft,
        view: View,
        options: CopyOptions,
        *,
        now_ns: int,
        serial: str,
        unpack: Unpack | None = None,
    ) -> None:
        self._draft = draft
        self._view = view
        self._options = options
        self._time = options.timestamp_ns
        self._now = now_ns if options.timestamp_ns is None else options.timestamp_ns
        self._serial = serial
        self._unpack = unpack
        self._change = parse_mode(options.mode) if isinstance(options.mode, str) else None
        self._parents_mode = options.mode & 0o777 if isinstance(options.mode, int) else DIRECTORY_MODE

    def copy(self, src: str, dest: str) -> None:
        """Copy all that `src` means to `dest`.

        Raises:
            InputError: nothing there, or something in the way.
        """
        sources = find_sources(self._view, src, self._options)
        if not self._options.create_dest_path:
            folder = self._draft.resolve(dest).rpartition("/")[0]
            if self._draft.lookup(folder) is None:
                raise InputError(f"no directory /{folder} to copy to", where=dest)
        for number, source in enumerate(sources):
            if not (self._options.attempt_unpack and self._copy_archive(source, dest)):
                self._copy_source(source, dest, f"{self._serial}.{number}")

    def _copy_source(self, source: Source, dest: str, serial: str) -> None:
        draft, is_dir = self._draft, source.entry.kind == "d"
        names_directory = dest.endswith(("/", "/.")) or dest in ("", ".")
        ensure = dest if names_directory else dest.rpartition("/")[0]
        self._make_dirs(draft.resolve(ensure))
        target = draft.resolve(dest)
        there = draft.lookup(target)
        contents = is_dir and self._options.dir_copy_contents
        if there is not None and not contents and (is_dir or there.kind == "d") and source.name:
            target = f"{target}/{source.name}" if target else source.name
        folder = target if contents and there is None else target.rpartition("/")[0]
        self._make_dirs(folder)
        # Directories that this copy has made: nothing can be in the way there.
        fresh: set[str] = set()
        prefix = f"{target}/" if target else ""
        for step in iter_source(self._view, source.entry, self._options):
            path = prefix + step.path if step.path else target
            if step.entry.kind == "d":
                self._put_directory(path, step, fresh)
            else:
                self._put_file(path, step.entry, fresh, serial)

    def _make_dirs(self, path: str) -> None:
        self._draft.make_dirs(path, self._parents_mode, self._options.owner, self._now)

    def _put_file(self, path: str, entry: Entry, fresh: set[str], serial: str) -> None:
        if path.rpartition("/")[0] not in fresh:
            there = self._draft.lookup(path)
            if there is not None and there.kind == "d":
                if not self._options.always_replace_existing_dest_paths:
                    raise InputError(
                        f"cannot replace the directory /{path} by a file",
                        where=f"/{path}",
                        hint=f"choose another destination, or remove /{path} in a step before",
                    )
                self._draft.remove(path)
        group = self._view.link_group(entry)
        self._draft.put(self._dressed(path, entry), (self._view, entry), f"{serial}:{group}" if group else "")

    def _put_directory(self, path: str, step: Step, fresh: set[str]) -> None:
        entry, draft = step.entry, self._draft
        there = draft.lookup(path) if path.rpartition("/")[0] not in fresh or not path else None
        if there is not None and there.kind != "d":
            if not self._options.always_replace_existing_dest_paths or step.implied:
                raise InputError(
                    f"cannot copy a directory over /{path}, which is not one",
                    where=f"/{path}",
                    hint=f"choose another destination, or remove /{path} in a step before",
                )
            draft.remove(path)
            there = None
        if there is None:
            draft.put(self._dressed(path, entry))
            fresh.add(path)
        elif not path:
            return  # the root keeps what it has
        elif not step.path:
            draft.put(there._replace(mtime_ns=entry.mtime_ns if self._time is None else self._time))
        elif step.implied:
            draft.put(there._replace(mode=entry.mode))
        else:
            dressed = self._dressed(path, entry)
            draft.put(dressed._replace(xattrs=_merged_xattrs(there.xattrs, entry.xattrs)))

    def _dressed(self, path: str, entry: Entry) -> Entry:
        """Return the source's entry as it is at the destination."""
        options = self._options
        uid, gid = options.owner or (entry.uid, entry.gid)
        mode = 0o777 if entry.kind == "l" else entry.mode  # links have no mode of their own, whatever an archive says
        if entry.kind != "l":
            if self._change is not None:
                mode = self._change(mode, entry.kind == "d")
            elif isinstance(options.mode, int):
                mode = options.mode & 0o7777
        return entry._replace(
            path=path,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=entry.mtime_ns if self._time is None else self._time,
            opaque=False,
        )

    def _copy_archive(self, source: Source, dest: str) -> bool:
        """Unpack the source below `dest` if it is an archive."""
        if source.entry.kind != "f":
            return False
        if self._unpack is None:
            raise InputError("archives cannot be unpacked here", where=f"/{source.path}")
        try:
            items = self._unpack(self._view, source.entry)
        except LayerError as error:
            hint = error.hint or "pack or fetch it again; COPY copies an archive as it is"
            what = error.what if error.where == f"/{source.path}" else str(error)
            raise InputError(f"cannot unpack /{source.path}: {what}", hint=hint) from error
        if items is None:
            return False
        folder = self._draft.resolve(dest)
        self._draft.make_dirs(folder, DIRECTORY_MODE, self._options.owner, self._now)
        for item in items:
            self._unpack_item(item, folder, source)
        return True

    def _unpack_item(self, item: Item, folder: str, source: Source) -> None:
        """Put one entry of an archive below `folder`, which is the root of all links in it."""
        draft, entry = self._draft, item.entry
        if not entry.path:
            return
        prefix = f"{folder}/" if folder else ""
        parent, _, name = entry.path.rpartition("/")
        parent = clean_path(prefix + self._resolve_below(prefix, parent))
        draft.make_dirs(parent, DIRECTORY_MODE, None, self._now)  # those the archive implies are root's
        path = f"{parent}/{name}" if parent else name
        there = draft.lookup(path)
        uid, gid = self._options.owner or (entry.uid, entry.gid)
        new = entry._replace(path=path, uid=uid, gid=gid, opaque=False)
        if entry.kind == "w" or name.startswith(".wh."):
            raise InputError(f"an archive holds a whiteout: {entry.path}", where=f"/{source.path}")
        if entry.kind == "d" and there is not None and there.kind == "d":
            draft.put(new._replace(xattrs=_merged_xattrs(there.xattrs, entry.xattrs)))
            return
        if entry.kind == "h":
            self._unpack_link(new, clean_path(prefix + self._resolve_below(prefix, entry.target, False)), source)
            return
        if there is not None:
            draft.remove(path)
        draft.put(new, item.content)

    def _unpack_link(self, entry: Entry, target: str, source: Source) -> None:
        draft = self._draft
        data = draft.own.get(target)
        if data is None or data.kind in "dw":
            raise InputError(
                f"a hard link in an archive points to no file of it: {entry.path} to {target}", where=f"/{source.path}"
            )
        if entry.path == target:
            return
        group = draft.groups.get(target) or f"{self._serial}:{target}"
        content = draft.contents.get(target)
        draft.put(data, content, group)
        if draft.lookup(entry.path) is not None:
            draft.remove(entry.path)
        draft.put(data._replace(path=entry.path), content, group)

    def _resolve_below(self, prefix: str, path: str, follow_last: bool = True) -> str:
        return resolve_path(lambda below: self._draft.lookup(prefix + below), path, follow_last)


def _merged_xattrs(old: Xattrs, new: Xattrs) -> Xattrs:
    return tuple(sorted({**dict(old), **dict(new)}.items())) if old else new
