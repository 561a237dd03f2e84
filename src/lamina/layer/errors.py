"""What can be wrong with a layer or an archive. Pure."""

from __future__ import annotations

from lamina.errors import InputError


class LayerError(InputError):
    """A layer, or an archive, is not what it must be."""


class TarError(LayerError):
    """An entry breaks a rule of the tar format, or one that keeps a tree inside its root.

    Args:
        rule: what is wrong, in words.
        entry: name of the entry as the archive has it, "" when none was read yet.
        hint: how to mend it.
    """

    def __init__(self, rule: str, entry: str = "", *, hint: str = "") -> None:
        super().__init__(rule, where=show_name(entry) if entry else "", hint=hint)
        self.entry = entry


class CompressionError(LayerError):
    """Compressed bytes are damaged, cut short, or grow beyond a limit."""


class DiffIdError(LayerError):
    """The content of a layer does not have the digest it is known by."""


class ContentChangedError(LayerError):
    """A file did not have the bytes it was promised to have: it changed after it was looked at.

    Args:
        path: the entry's path.
        what: what did not agree.
    """

    def __init__(self, path: str, what: str) -> None:
        super().__init__(
            f"the file changed while it was read: {what}",
            where=show_name(path),
            hint="build again when nothing writes to it",
        )
        self.path = path


def show_name(name: str) -> str:
    """Return a name from outside in a form that may be printed: no control characters, not too long."""
    text = name if len(name) <= 300 else f"{name[:300]}..."
    if text.isprintable():
        return text
    return text.encode("unicode_escape", "surrogatepass").decode("ascii").replace("\\udc", "\\x")
