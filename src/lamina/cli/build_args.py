"""The options of `lamina build`, with the names and meanings that docker and buildx users know.

In: the command line. Out: a `Request` of plain values (the keyword arguments of `BuildOptions`, and what stays
on the user's side: secrets, SSH agents, files to write). Imports nothing but what the fully cached path has
anyway. What has no meaning yet fails with `NotYetError`; nothing is silently ignored, except options that ask
for what happens here in any case (`--rm`).
"""

from __future__ import annotations

import os

from lamina.cli.build_values import (
    check_output,
    find_directory,
    parse_add_host,
    parse_allow,
    parse_boolean,
    parse_build_args,
    parse_build_contexts,
    parse_epoch,
    parse_key_values,
    parse_network,
    parse_size,
    parse_ulimit,
    source_policies,
    split_commas,
)
from lamina.cli.secret_args import counted_secrets, parse_secret, parse_ssh
from lamina.errors import InputError, NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Mapping

    from lamina.cli.calls import Call

PROGRESS = ("auto", "tty", "plain", "rawjson", "quiet", "none")
_NOT_YET = {
    "builder": "--builder (remote builders)",
    "policy": "--policy",
    "squash": "--squash",
    "memory": "--memory (limits per step)",
    "cpus": "--cpus (limits per step)",
    "security_opt": "--security-opt",
}
_FLAGS_NOT_YET = ("squash",)
_BOOLEANS = (
    "pull",
    "no-cache",
    "push",
    "load",
    "quiet",
    "rm",
    "force-rm",
    "provenance",
    "sbom",
    "check",
    "explain",
    "fix",
    "exact-modes",
    *_FLAGS_NOT_YET,
)


class Request:
    """One `lamina build` as asked for.

    Attributes:
        options: keyword arguments of `engine.options.BuildOptions`, without context and Dockerfile.
        secrets: id to ("file" | "env", path or variable name).
        ssh: id to the path of an agent's socket, or to those of private keys.
        context: PATH as given, "-" for standard input.
        file: `--file` as given, "" when absent.
        progress: one of `PROGRESS`.
        explain: say below each step that runs why it was not in the cache.
        iidfile, metadata_file: files to write, "" for none.
        call: what to do instead of building, None to build.
        fix: what becomes of findings that can be mended: "" nothing, "diff" shows how, "write" does it.
    """

    __slots__ = (
        *("call", "context", "explain", "file", "fix", "iidfile", "metadata_file"),
        *("options", "progress", "secrets", "ssh"),
    )

    def __init__(self, args: Namespace, environ: Mapping[str, str]) -> None:
        _refuse_not_yet(args)
        self.call = _call("check" if args.check else args.call)
        self.fix: str = args.fix
        if self.fix and (self.call is None or self.call.name != "check"):
            raise InputError("--fix goes with --check", hint="lamina build --check --fix PATH")
        self.context: str = args.path
        self.file: str = args.file
        self.iidfile: str = args.iidfile
        self.metadata_file: str = args.metadata_file
        self.progress = _progress(args, environ)
        self.explain: bool = args.explain
        self.secrets = dict(parse_secret(text, environ) for text in args.secret)
        self.ssh = dict(parse_ssh(text, environ) for text in args.ssh)
        self.options = _options(args, environ)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare every option of `lamina build`."""
    add = parser.add_argument
    add(
        "path",
        metavar="PATH",
        help="build context: a directory, a git repository, the URL of an archive or Dockerfile, - for one on stdin",
    )
    add("-f", "--file", default="", metavar="FILE", help="the Dockerfile (default PATH/Dockerfile; - for stdin)")
    add("-t", "--tag", action="append", default=[], metavar="NAME", help="name for the image (repeatable)")
    add("--target", default="", metavar="STAGE", help="build up to this stage")
    _many(parser, "--build-arg", "NAME[=VALUE]", "value for an ARG; without = it comes from the environment")
    _many(parser, "--label", "KEY=VALUE", "label in the image's config")
    _many(parser, "--annotation", "KEY=VALUE", "annotation on the image's manifest")
    _many(parser, "--platform", "OS/ARCH", "platform to build for (comma list or repeatable)")
    add(
        "--pull",
        type=parse_boolean,
        default=False,
        metavar="BOOL",
        help="ask the registry for base images, always",
    )
    add("--no-cache", type=parse_boolean, default=False, metavar="BOOL", help="run every step again")
    add(
        "--exact-modes",
        type=parse_boolean,
        default=False,
        metavar="BOOL",
        help="file modes count for the cache as they are, not as git has them",
    )
    _many(parser, "--no-cache-filter", "STAGE", "run the steps of these stages again")
    add("--network", default="", metavar="MODE", help="network of RUN steps: default, host or none")
    _many(parser, "--add-host", "HOST:IP", "line for /etc/hosts of RUN steps")
    add("--shm-size", default="", metavar="SIZE", help="size of /dev/shm in RUN steps (such as 64m)")
    _many(parser, "--ulimit", "NAME=SOFT[:HARD]", "limit for RUN steps")
    add("--hostname", default="", metavar="NAME", help="host name in RUN steps")
    add("--cgroup-parent", default="", metavar="PATH", help="control group in which those of RUN steps are made")
    add(
        "--source-policy",
        default="",
        metavar="FILE",
        help="JSON file that says which sources may be used (default: $EXPERIMENTAL_BUILDKIT_SOURCE_POLICY)",
    )
    _many(parser, "--allow", "ENTITLEMENT", "let steps have more: security.insecure, network.host, device[=NAME]")
    _many(parser, "--cdi-dir", "DIR", "directory that describes devices (CDI), instead of /etc/cdi and its like")
    text = "secret that RUN --mount=type=secret may read; with fingerprint=true a changed one runs its steps again"
    _many(parser, "--secret", "id=ID[,src=FILE|env=VAR][,fingerprint=BOOL]", text)
    add("--secret-key", default="", metavar="FILE", help="key for fingerprints of secrets, for machines that share one")
    _many(parser, "--ssh", "default|ID[=SOCKET|KEY,...]", "SSH agent or keys that RUN --mount=type=ssh may use")
    _many(parser, "--build-context", "NAME=SOURCE", "additional named context")
    _many(parser, "--cache-from", "SPEC", "take cached steps from IMAGE or type=registry|local|gha|s3|azblob,...")
    _many(
        parser, "--cache-to", "SPEC", "export cached steps: type=inline|registry|local|gha|s3|azblob,mode=min|max,..."
    )
    add("--ca", default="", choices=["", "host"], help="host: RUN steps trust what this host trusts, tracelessly")
    add("-j", "--jobs", type=int, default=0, metavar="N", help="how many steps run at once")
    _add_output(parser)
    add(
        "--explain",
        type=parse_boolean,
        default=False,
        metavar="BOOL",
        help="say why each step that runs was not cached",
    )
    add(
        "--expect-cached",
        action="append",
        default=[],
        metavar="[STEP]",
        help="fail when a step (with STEP in its name; without, any) is not in the cache, before it runs",
    )
    add("--check", type=parse_boolean, default=False, metavar="BOOL", help="only check the Dockerfile: --call=check")
    add(
        "--fix",
        type=_fix,
        default="false",
        metavar="HOW",
        help="with --check: mend the Dockerfile where that is safe, and show the diff; --fix=diff only shows it",
    )
    add(
        "--call",
        default="build",
        metavar="WHAT",
        help="build, check (what could be better), outline (arguments, secrets), targets, convertllb; "
        "[,format=text|json|sarif]",
    )
    _add_not_yet(parser)


def prepare(words: list[str]) -> list[str]:
    """Return the command line with `--flag` written as `--flag=true`, since `--flag=false` is allowed too."""
    found: list[str] = []
    for index, word in enumerate(words):
        if word == "--":
            return found + words[index:]
        if word == "-q":
            word = "--quiet"
        if word == "--expect-cached":
            word = "--expect-cached="  # bare: every step; a word behind it is the context
        found.append(f"{word}=true" if word.startswith("--") and word[2:] in _BOOLEANS else word)
    return found


def _fix(text: str) -> str:
    """Return "write", "diff" or "" for `--fix=text`."""
    if text in ("diff", "write"):
        return text
    return "write" if parse_boolean(text) else ""


def _add_output(parser: ArgumentParser) -> None:
    """Declare where the result and the messages go."""
    add = parser.add_argument
    add("-o", "--output", action="append", default=[], metavar="SPEC", help="type=TYPE,dest=PATH,... (repeatable)")
    add("--push", type=parse_boolean, default=False, metavar="BOOL", help="upload the result to its registry")
    add("--load", type=parse_boolean, default=False, metavar="BOOL", help="load the result into docker")
    _many(parser, "--attest", "type=TYPE[,...]", "say of the result how it was made: type=provenance or type=sbom")
    add("--provenance", default="", metavar="HOW", help="short for --attest=type=provenance: true, mode=max, ...")
    add("--sbom", default="", metavar="HOW", help="short for --attest=type=sbom: true, generator=IMAGE")
    add("--iidfile", default="", metavar="FILE", help="write the image ID to a file")
    add("--metadata-file", default="", metavar="FILE", help="write digests and more as JSON to a file")
    add("--progress", default="", choices=PROGRESS, help="how to show progress (default auto)")
    add("-q", "--quiet", type=parse_boolean, default=False, metavar="BOOL", help="print only the image ID")


def _add_not_yet(parser: ArgumentParser) -> None:
    """Declare what is understood but has no meaning yet, and what asks for what happens anyway."""
    import argparse

    for name in _NOT_YET:
        option = "--" + name.replace("_", "-")
        if name in _FLAGS_NOT_YET:
            parser.add_argument(option, type=parse_boolean, default=False, help=argparse.SUPPRESS)
        else:
            parser.add_argument(option, action="append", default=[], help=argparse.SUPPRESS)
    for option in ("--rm", "--force-rm"):
        parser.add_argument(option, type=parse_boolean, default=True, help=argparse.SUPPRESS)


def _many(parser: ArgumentParser, option: str, metavar: str, text: str) -> None:
    parser.add_argument(option, action="append", default=[], metavar=metavar, help=text)


def _refuse_not_yet(args: Namespace) -> None:
    """Raise `NotYetError` for the first option given that has no meaning yet."""
    for name, feature in _NOT_YET.items():
        if getattr(args, name):
            raise NotYetError(feature)
    if not args.rm:
        raise NotYetError("--rm=false (keeping the containers of steps)")


def _options(args: Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """Return the keyword arguments of `BuildOptions` that the command line says."""
    if args.jobs < 0:
        raise InputError(f"--jobs must not be negative, got {args.jobs}")
    if args.load and args.push:
        raise InputError("--load and --push exclude each other", hint="name both outputs with --output")
    return {
        "tags": list(args.tag),
        "target": args.target,
        "build_args": _build_args(args, environ),
        "labels": parse_key_values(args.label, "--label"),
        "annotations": parse_key_values(args.annotation, "--annotation"),
        "platforms": split_commas(args.platform),
        "pull": args.pull,
        "no_cache": args.no_cache,
        "no_cache_filter": split_commas(args.no_cache_filter),
        "network": parse_network(args.network),
        "add_hosts": [parse_add_host(text) for text in args.add_host],
        "shm_size": parse_size(args.shm_size, "--shm-size") if args.shm_size else 0,
        "ulimits": [parse_ulimit(text) for text in args.ulimit],
        "hostname": args.hostname,
        "outputs": [check_output(text) for text in args.output],
        "push": args.push,
        "load": args.load,
        "jobs": args.jobs,
        "build_contexts": parse_build_contexts(args.build_context),
        "cache_from": args.cache_from,
        "cache_to": args.cache_to,
        "ca": args.ca,
        "allow": parse_allow(args.allow),
        "cdi_dirs": [find_directory(path, "--cdi-dir") for path in args.cdi_dir],
        "cgroup_parent": args.cgroup_parent,
        "exact_modes": args.exact_modes,
        "counted_secrets": counted_secrets(args.secret, environ),
        "secret_key": os.path.abspath(args.secret_key) if args.secret_key else "",
        "source_date_epoch": parse_epoch(_build_args(args, environ).get("SOURCE_DATE_EPOCH", "")),
        "origin": "",
        "origin_materials": [],
        "expect_cached": args.expect_cached,
        "attests": _attests(args),
        "vcs": {},
        "source_policies": source_policies(args.source_policy, environ),
    }


def _attests(args: Namespace) -> dict[str, str]:
    """Return the attestations asked for; nothing is imported for a build without."""
    if not (args.attest or args.provenance or args.sbom):
        return {}
    from lamina.cli.attest_args import parse_attests

    return parse_attests(args.attest, args.provenance, args.sbom)


def _build_args(args: Namespace, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the build arguments; as in buildx the environment's SOURCE_DATE_EPOCH is one."""
    given = parse_build_args(args.build_arg, environ)
    epoch = environ.get("SOURCE_DATE_EPOCH", "")
    return {"SOURCE_DATE_EPOCH": epoch, **given} if epoch else given


def _call(text: str) -> Call | None:
    """Return what `--call` asks for, None for building; a build needs no more than this to know."""
    if text == "build":
        return None
    from lamina.cli.calls import parse_call

    return parse_call(text)


def _progress(args: Namespace, environ: Mapping[str, str]) -> str:
    """Return the display asked for: option, then BUILDKIT_PROGRESS, then auto."""
    if args.quiet:
        if args.progress not in ("", "quiet"):
            raise InputError(f"--quiet and --progress={args.progress} exclude each other")
        return "quiet"
    value: str = args.progress or environ.get("BUILDKIT_PROGRESS", "") or "auto"
    if value not in PROGRESS:
        raise InputError(f"BUILDKIT_PROGRESS={value!r} is none of {', '.join(PROGRESS)}")
    return value


def parser_of(prog: str = "lamina build") -> Callable[[list[str]], Namespace]:
    """Return a function that parses a command line; for tests and for programs."""
    import argparse

    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    add_arguments(parser)
    return lambda words: parser.parse_args(prepare(words))
