"""Entry of the `lamina` command: choose a verb, run it, turn errors into text and an exit code.

In: the command line. Out: an exit code; messages for people on standard error. It must stay light: a fully
cached build has finished before many programs have imported their frameworks, so nothing but argparse and
the chosen verb's module is imported here, and what fails is explained by modules imported only then.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "build": "build an image from a Dockerfile",
    "plan": "say what a build would run, and how long that took last time",
    "why": "say why steps of a build were not in the cache",
    "context": "list what a build can see of its context, and which rule kept or dropped it",
    "run": "run a command in an image, to try it",
    "images": "list the images in the store",
    "tag": "give an image another name",
    "rmi": "remove images from the store",
    "pull": "fetch an image from a registry",
    "push": "upload an image to a registry",
    "save": "write images to a tar archive",
    "load": "read images from a tar archive or an OCI layout",
    "history": "show records of builds (ls, show, logs, export, rm), or the layers of an image",
    "inspect": "show an image's config and manifest as JSON",
    "du": "show what takes up disk space",
    "prune": "remove cached results that nothing needs",
    "cache": "look after cache mounts: `cache mount ls|export|import|rm`",
    "store": "look after the store: `store check`",
    "serve": "build for BuildKit's clients: buildctl, buildx, the docker command",
    "dial-stdio": "connect standard input and output to the daemon, for tunnels",
    "doctor": "say what this machine offers for builds, and how to mend what is missing",
    "completion": "print a script that completes this command in bash, zsh or fish",
    "version": "print the version",
}

_USAGE = "usage: lamina [--root DIR] [--max-storage SIZE] VERB [OPTIONS] ..."


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's) and return the exit code.

    Exit codes: 0 done; 1 a step failed; 2 wrong input; 3 storage; 4 network; 5 this machine; 130 cancelled.
    """
    if argv is None:
        _name_files_in_utf8()
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _dispatch(arguments)
        _flush()
        return code
    except BrokenPipeError:
        _drop_stdout()
        return 141
    except KeyboardInterrupt:
        sys.stderr.write("cancelled\n")
        return 130
    except SystemExit as exit_:  # argparse: --help and usage errors
        return exit_.code if isinstance(exit_.code, int) else 2
    except Exception as error:
        return report(error)


def _name_files_in_utf8() -> None:
    """Start over with UTF-8 for the names of files where the locale says otherwise: it must not change any result."""
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode and sys.executable:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def report(error: BaseException) -> int:
    """Print `error` for a person on standard error and return its exit code; a traceback only on request."""
    from lamina.cli.terminal import clean_text
    from lamina.errors import Error

    if os.environ.get("LAMINA_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if isinstance(error, Error):
        print(clean_text(error.diagnostics()), file=sys.stderr)
        return error.exit_code
    if isinstance(error, OSError):
        path = f"{error.filename}: " if error.filename else ""
        print(clean_text(f"error: {path}{error.strerror or error}"), file=sys.stderr)
        return 3 if error.errno in _DISK_TROUBLE else 1
    print(clean_text(f"error: internal: {type(error).__name__}: {error}"), file=sys.stderr)
    print("hint: this is a fault in lamina; run again with LAMINA_DEBUG=1 for details to report", file=sys.stderr)
    return 70


_DISK_TROUBLE = (28, 30, 122, 5)
"""Error numbers that mean the disk: ENOSPC, EROFS, EDQUOT, EIO."""


def _dispatch(arguments: list[str]) -> int:
    """Handle what stands before the verb, then parse the rest with the verb's own parser and run it."""
    while arguments and arguments[0].startswith("-"):
        option = arguments.pop(0)
        if option in ("-h", "--help"):
            print(_help())
            return 0
        if option in ("-V", "--version"):
            arguments = ["version"]
        elif option == "--root" and arguments:
            os.environ["LAMINA_ROOT"] = arguments.pop(0)
        elif option.startswith("--root="):
            os.environ["LAMINA_ROOT"] = option.partition("=")[2]
        elif option == "--max-storage" and arguments:
            os.environ["LAMINA_MAX_STORAGE"] = arguments.pop(0)
        elif option.startswith("--max-storage="):
            os.environ["LAMINA_MAX_STORAGE"] = option.partition("=")[2]
        else:
            return _usage_error(f"unknown option {option!r} before the verb")
    if not arguments:
        print(_help(), file=sys.stderr)
        return 2
    verb, rest = arguments[0], arguments[1:]
    if verb == "help":
        return _dispatch([*rest[:1], "--help"] if rest else ["--help"])
    if verb == "__complete":  # a shell asks, see `lamina completion`
        from lamina.cli.complete import main as complete

        return complete(rest)
    if verb not in VERBS:
        return _usage_error(_unknown_verb(verb))
    return _run_verb(verb, rest)


def _run_verb(verb: str, rest: list[str]) -> int:
    """Import the verb's module, parse its arguments and run it."""
    import argparse
    from importlib import import_module

    module = import_module(f"lamina.cli.verbs.{verb.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"lamina {verb}",
        description=_sentence(VERBS[verb]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    if hasattr(module, "prepare"):
        rest = module.prepare(rest)
    return int(module.run(parser.parse_args(rest)))


def _help() -> str:
    """Return the text of `lamina --help`: every verb with one line, without importing any of them."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in VERBS.items())
    return f"""{_USAGE}

Lamina builds container images from Dockerfiles, without a daemon.

verbs:
{verbs}

options:
  --root DIR  where images and cache lie (LAMINA_ROOT; /var/lib/lamina for root, else ~/.local/share/lamina)
  --max-storage SIZE  what all that may take at most, such as 50GB or 30% of the disk (LAMINA_MAX_STORAGE)
  --version   print the version
  --help      print this

`lamina VERB --help` explains a verb."""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _unknown_verb(verb: str) -> str:
    """Return the message for a verb that does not exist, with the nearest that does."""
    import difflib

    near = difflib.get_close_matches(verb, VERBS, 1)
    return f"unknown verb {verb!r}" + (f"; did you mean {near[0]!r}?" if near else "")


def _usage_error(message: str) -> int:
    from lamina.cli.terminal import clean_text

    print(f"{_USAGE}\nerror: {clean_text(message)}\nhint: `lamina --help` lists the verbs", file=sys.stderr)
    return 2


def _flush() -> None:
    """Write out what is buffered, so that a reader that went away is noticed here and not at exit."""
    if sys.stdout is not None:
        sys.stdout.flush()


def _drop_stdout() -> None:
    """Point standard output at /dev/null, so that the interpreter's last flush stays quiet."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
