"""The options of `lamina build`, with the names and meanings that docker and buildx users know.

In: the command line. Out: a `Request` of plain values (the keyword arguments of `BuildOptions`, and what stays
on the user's side: secrets, SSH agents, files to write). Imports nothing but what the fully cached path has
anyway. What has no meaning yet fails with `NotYetError`; nothing is silently ignored, except options that ask
for what happens here in any case (`--rm`).
"""

from __future__ import annotations

import os

from lamina.csvline import parse_pairs, split_csv
from lamina.errors import InputError, NotYetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace
    from collections.abc import Callable, Iterable, Mapping

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
_ENTITLEMENTS = ("network.host", "security.insecure", "device")
_FLAGS_NOT_YET = ("squash",)
_ULIMITS = {
    *("as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue"),
    *("nice", "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"),
}
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
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


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
        type=_boolean,
        default=False,
        metavar="BOOL",
        help="ask the registry for base images, always",
    )
    add("--no-cache", type=_boolean, default=False, metavar="BOOL", help="run every step again")
    add(
        "--exact-modes",
        type=_boolean,
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
        type=_boolean,
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
    add("--check", type=_boolean, default=False, metavar="BOOL", help="only check the Dockerfile: --call=check")
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


def _boolean(text: str) -> bool:
    """Return the value of `--flag=text`, as Go's flags have it."""
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise ValueError(text)


def _fix(text: str) -> str:
    """Return "write", "diff" or "" for `--fix=text`."""
    if text in ("diff", "write"):
        return text
    return "write" if _boolean(text) else ""


def _add_output(parser: ArgumentParser) -> None:
    """Declare where the result and the messages go."""
    add = parser.add_argument
    add("-o", "--output", action="append", default=[], metavar="SPEC", help="type=TYPE,dest=PATH,... (repeatable)")
    add("--push", type=_boolean, default=False, metavar="BOOL", help="upload the result to its registry")
    add("--load", type=_boolean, default=False, metavar="BOOL", help="load the result into docker")
    _many(parser, "--attest", "type=TYPE[,...]", "say of the result how it was made: type=provenance or type=sbom")
    add("--provenance", default="", metavar="HOW", help="short for --attest=type=provenance: true, mode=max, ...")
    add("--sbom", default="", metavar="HOW", help="short for --attest=type=sbom: true, generator=IMAGE")
    add("--iidfile", default="", metavar="FILE", help="write the image ID to a file")
    add("--metadata-file", default="", metavar="FILE", help="write digests and more as JSON to a file")
    add("--progress", default="", choices=PROGRESS, help="how to show progress (default auto)")
    add("-q", "--quiet", type=_boolean, default=False, metavar="BOOL", help="print only the image ID")


def _add_not_yet(parser: ArgumentParser) -> None:
    """Declare what is understood but has no meaning yet, and what asks for what happens anyway."""
    import argparse

    for name in _NOT_YET:
        option = "--" + name.replace("_", "-")
        if name in _FLAGS_NOT_YET:
            parser.add_argument(option, type=_boolean, default=False, help=argparse.SUPPRESS)
        else:
            parser.add_argument(option, action="append", default=[], help=argparse.SUPPRESS)
    for option in ("--rm", "--force-rm"):
        parser.add_argument(option, type=_boolean, default=True, help=argparse.SUPPRESS)


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
        "labels": _pairs(args.label, "--label"),
        "annotations": _pairs(args.annotation, "--annotation"),
        "platforms": _comma_list(args.platform),
        "pull": args.pull,
        "no_cache": args.no_cache,
        "no_cache_filter": _comma_list(args.no_cache_filter),
        "network": parse_network(args.network),
        "add_hosts": [parse_add_host(text) for text in args.add_host],
        "shm_size": parse_size(args.shm_size, "--shm-size") if args.shm_size else 0,
        "ulimits": [parse_ulimit(text) for text in args.ulimit],
        "hostname": args.hostname,
        "outputs": [check_output(text) for text in args.output],
        "push": args.push,
        "load": args.load,
        "jobs": args.jobs,
        "build_contexts": _build_contexts(args.build_context),
        "cache_from": args.cache_from,
        "cache_to": args.cache_to,
        "ca": args.ca,
        "allow": parse_allow(args.allow),
        "cdi_dirs": [_directory(path, "--cdi-dir") for path in args.cdi_dir],
        "cgroup_parent": args.cgroup_parent,
        "exact_modes": args.exact_modes,
        "counted_secrets": counted_secrets(args.secret, environ),
        "secret_key": os.path.abspath(args.secret_key) if args.secret_key else "",
        "source_date_epoch": parse_epoch(_build_args(args, environ).get("SOURCE_DATE_EPOCH", "")),
        "origin": "",
        "origin_materials": [],
        "expect_cached": args.expect_cached,
        "attests": _attests(args),
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


def parse_allow(texts: Iterable[str]) -> list[str]:
    """Return the entitlements that `--allow` grants; the alias of a device is kept with it: `device=A,alias=B`."""
    found: list[str] = []
    for name in _comma_list(texts):
        if name.startswith("alias=") and found and found[-1].startswith("device=") and "," not in found[-1]:
            found[-1] += f",{name}"
        elif name in _ENTITLEMENTS or (name.startswith("device=") and name != "device="):
            found.append(name)
        else:
            raise InputError(
                f"--allow {name!r} is no entitlement that is known",
                hint=f"one of {', '.join(_ENTITLEMENTS)}, device=NAME, device=NAME,alias=OTHER",
            )
    return sorted(set(found))


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


def parse_build_args(texts: Iterable[str], environ: Mapping[str, str]) -> dict[str, str]:
    """Return build arguments; one without `=` takes its value from the environment, or is left out."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InputError(f"--build-arg {text!r} has no name", hint="write --build-arg NAME=VALUE")
        if equals:
            found[name] = value
        elif name in environ:
            found[name] = environ[name]
        else:
            found.pop(name, None)
    return found


def _pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return `KEY=VALUE` options; a key without `=` has the empty value."""
    found = {}
    for text in texts:
        key, _, value = text.partition("=")
        if not key:
            raise InputError(f"{option} {text!r} has no key", hint=f"write {option} KEY=VALUE")
        found[key] = value
    return found


def _comma_list(texts: Iterable[str]) -> list[str]:
    return [word.strip() for text in texts for word in text.split(",") if word.strip()]


def _directory(path: str, option: str) -> str:
    """Return the absolute path of a directory that an option names."""
    if not os.path.isdir(path):
        raise InputError(f"{option} {path!r} is no directory", hint="name one with .json or .yaml files in it")
    return os.path.abspath(path)


def _build_contexts(texts: Iterable[str]) -> dict[str, str]:
    """Return named contexts; directories become absolute."""
    found = {}
    for text in texts:
        name, equals, source = text.partition("=")
        if not name or not equals or not source:
            raise InputError(f"--build-context {text!r} is not NAME=SOURCE")
        if "://" not in source and not source.startswith("target:"):
            if not os.path.isdir(source):
                raise InputError("no such directory", where=source, hint=f"for --build-context {name}")
            source = os.path.abspath(source)
        elif source.startswith("oci-layout://"):
            source = "oci-layout://" + os.path.abspath(source.removeprefix("oci-layout://"))
        found[name] = source
    return found


def parse_network(text: str) -> str:
    """Return "", "host" or "none" for `--network`."""
    if text in ("", "default"):
        return ""
    if text in ("host", "none"):
        return text
    raise NotYetError(f"--network={text}", hint="default, host and none are known")


def parse_add_host(text: str) -> str:
    """Return `name=address` for `--add-host name:address` or `name=address`; an IPv6 address may be bracketed."""
    separator = "=" if "=" in text else ":"
    name, found, address = text.partition(separator)
    address = address.removeprefix("[").removesuffix("]")
    if not found or not name or not address:
        raise InputError(f"--add-host {text!r} is not HOST:IP")
    if address != "host-gateway":
        import socket

        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            socket.inet_pton(family, address)
        except OSError:
            raise InputError(f"--add-host: {address!r} is not an IP address") from None
    return f"{name}={address}"


def parse_size(text: str, option: str) -> int:
    """Return bytes for `64m`, `1g`, `512k`, `1024` (units are powers of 1024, as docker has them)."""
    number = text.strip().lower().removesuffix("ib")
    if number[-2:-1] in tuple("kmgt") and number.endswith("b"):
        number = number[:-1]
    unit = number[-1:] if number[-1:].isalpha() else ""
    digits = number.removesuffix(unit).strip()
    whole, _, part = digits.partition(".")
    if unit not in _UNITS or not whole.isascii() or not whole.isdigit() or (part and not part.isdigit()):
        raise InputError(f"{option}: {text!r} is not a size", hint="write a number with b, k, m or g")
    return int(float(digits) * _UNITS[unit]) if part else int(whole) * _UNITS[unit]


def parse_ulimit(text: str) -> str:
    """Return `name=soft:hard` for `name=soft[:hard]`; -1 means unlimited."""
    name, equals, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    hard = hard or soft
    if not equals or not _is_limit(soft) or not _is_limit(hard):
        raise InputError(f"--ulimit {text!r} is not NAME=SOFT[:HARD]")
    if name not in _ULIMITS:
        raise InputError(f"--ulimit: no such limit: {name!r}", hint="known: " + ", ".join(sorted(_ULIMITS)))
    if hard != "-1" and (soft == "-1" or int(soft) > int(hard)):
        raise InputError(f"--ulimit {text!r}: the soft limit is above the hard one")
    return f"{name}={soft}:{hard}"


def _is_limit(text: str) -> bool:
    return text == "-1" or (text.isascii() and text.isdigit())


def parse_epoch(text: str) -> int | None:
    """Return SOURCE_DATE_EPOCH as seconds, None when unset."""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 33:
        raise InputError(f"SOURCE_DATE_EPOCH={text!r} is not a number of seconds")
    return int(text)


def parse_secret(text: str, environ: Mapping[str, str]) -> tuple[str, tuple[str, str]]:
    """Return (id, ("file", path) | ("env", variable)) for one `--secret`; the value itself is read when needed.

    Without a source, the variable of the id's name is taken if there is one, else the file of that name.

    Raises:
        InputError: no id, an unknown key, or a source that is not there.
    """
    pairs = parse_pairs(text, "--secret")
    unknown = set(pairs) - {"id", "src", "source", "env", "type", "fingerprint"}
    if unknown:
        raise InputError(f"--secret: unknown key {sorted(unknown)[0]!r}", hint="known: id, src, env, type, fingerprint")
    kind, source = pairs.get("type", ""), pairs.get("src") or pairs.get("source", "")
    variable = pairs.get("env", "")
    if kind not in ("", "file", "env"):
        raise InputError(f"--secret: type {kind!r} is none of file, env")
    secret_id = pairs.get("id", "") or (os.path.basename(source) if source else variable)
    if not secret_id:
        raise InputError("--secret needs an id", hint="write --secret id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if source and variable:
        raise InputError(f"--secret {secret_id}: src and env exclude each other")
    if kind == "env":
        variable = variable or source or secret_id
    elif not variable and not source and kind == "" and secret_id in environ:
        variable = secret_id
    if variable:
        if variable not in environ:
            raise InputError(f"--secret {secret_id}: the environment variable {variable!r} is not set")
        return secret_id, ("env", variable)
    path = os.path.abspath(os.path.expanduser(source or secret_id))
    if not os.path.isfile(path):
        raise InputError("no such file", where=path, hint=f"for --secret id={secret_id}")
    return secret_id, ("file", path)


def counted_secrets(texts: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Return the ids of the secrets that count in cache keys: those with `fingerprint=true`."""
    found: dict[str, bool] = {}
    for text in texts:
        value = parse_pairs(text, "--secret").get("fingerprint", "false")
        try:
            found[parse_secret(text, environ)[0]] = _boolean(value)
        except ValueError:
            raise InputError(f"--secret: fingerprint={value} is neither true nor false") from None
    return sorted(name for name, counts in found.items() if counts)


def parse_ssh(text: str, environ: Mapping[str, str]) -> tuple[str, str | tuple[str, ...]]:
    """Return (id, socket of an agent) or (id, private key files) for one `--ssh`.

    Raises:
        InputError: no agent is there, no such file, or an agent beside keys.
    """
    import stat

    ssh_id, _, rest = text.partition("=")
    ssh_id = ssh_id or "default"
    paths = [path for path in split_csv(rest, "--ssh") if path]
    if not paths:
        paths = [path for path in [environ.get("SSH_AUTH_SOCK", "")] if path]
        if not paths:
            raise InputError(f"--ssh {ssh_id}: SSH_AUTH_SOCK is not set", hint="start an agent or name its socket")
    found = [os.path.abspath(os.path.expanduser(path)) for path in paths]
    for path in found:
        try:
            mode = os.stat(path).st_mode
        except OSError:
            raise InputError("no such socket or key", where=path, hint=f"for --ssh {ssh_id}") from None
        if stat.S_ISSOCK(mode):
            if len(found) > 1:
                raise InputError(f"--ssh {ssh_id}: an agent stands alone", where=path, hint="give it an id of its own")
            return ssh_id, path
        if not stat.S_ISREG(mode):
            raise InputError(f"--ssh {ssh_id}: neither an agent's socket nor a key", where=path)
    return ssh_id, tuple(found)


def check_output(text: str) -> str:
    """Return an `--output` in its long form (`type=local,dest=DIR` for `DIR`, `type=tar,dest=-` for `-`).

    Raises:
        InputError: no type, no destination where one is needed, or a terminal as destination.
    """
    if text == "-":
        text = "type=tar,dest=-"
    elif "=" not in text:
        text = "type=local," + _quoted(f"dest={text}")
    pairs = parse_pairs(text, "--output")
    kind = pairs.get("type", "")
    if not kind:
        raise InputError(f"--output {text!r} has no type", hint="write type=oci,dest=FILE or a directory")
    if kind in ("local", "tar", "oci") and not pairs.get("dest"):
        raise InputError(f"--output type={kind} needs dest=PATH")
    if pairs.get("dest") == "-" and os.isatty(1):
        raise InputError("not writing an archive to a terminal", hint="redirect standard output or name a file")
    return text


def _quoted(field: str) -> str:
    """Return a CSV field, quoted where it must be."""
    if "," in field or '"' in field:
        return '"' + field.replace('"', '""') + '"'
    return field


def parser_of(prog: str = "lamina build") -> Callable[[list[str]], Namespace]:
    """Return a function that parses a command line; for tests and for programs."""
    import argparse

    parser = argparse.ArgumentParser(prog=prog, allow_abbrev=False)
    add_arguments(parser)
    return lambda words: parser.parse_args(prepare(words))
