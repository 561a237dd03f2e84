"""What the process environment says: where the state lies, and the settings that rank 6 is handed as values.

`state_root` is light, for the fully cached path; `load_environment` builds the whole `Environment`. Nothing
below rank 7 reads `os.environ`. Variables: LAMINA_ROOT, LAMINA_RUNTIME, LAMINA_CONFIG, LAMINA_CA_FILE (or
SSL_CERT_FILE), LAMINA_INSECURE_REGISTRIES (`host,host`), LAMINA_REGISTRY_MIRRORS (`docker.io=host,host;other=host`),
LAMINA_MAX_STORAGE (a ceiling such as `50GB`), LAMINA_HISTORY_BUILDS and LAMINA_HISTORY_AGE (what records stay),
DOCKER_CONFIG, SOURCE_DATE_EPOCH and the usual proxy variables.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lamina.engine.options import Environment
    from lamina.engine.upkeep.policy import Policies
    from lamina.history.keeping import Keeping

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_COLLECTORS = ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")


CACHE_VARIABLES = (
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_BUCKET",
    ),
    *("AZURE_STORAGE_KEY", "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL"),
    *("ACTIONS_RESULTS_URL", "ACTIONS_CACHE_URL", "ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_SERVICE_V2"),
)


def state_root() -> str:
    """Return the absolute path of the state directory; it need not exist."""
    root = os.environ.get("LAMINA_ROOT", "")
    if root:
        return os.path.abspath(root)
    if os.geteuid() == 0 and not in_user_namespace():
        return "/var/lib/lamina"
    data = os.environ.get("XDG_DATA_HOME", "")
    return os.path.join(data if os.path.isabs(data) else os.path.join(_home(), ".local", "share"), "lamina")


def in_user_namespace() -> bool:
    """Tell whether uid 0 here is not the machine's: the process runs in a user namespace."""
    try:
        with open("/proc/self/uid_map") as file:
            return file.readline().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


def is_traced() -> bool:
    """Tell whether the environment may say where traces go (lamina.cli.tracing finds out)."""
    return any(os.environ.get(name, "") not in ("", "none") for name in _COLLECTORS)


def default_address() -> str:
    """Return where the daemon of whoever runs this listens when nothing is said."""
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if os.path.isabs(runtime) and (os.geteuid() or in_user_namespace()):
        return f"unix://{runtime}/lamina/lamina.sock"
    return "unix:///run/lamina/lamina.sock"


def default_daemon_config() -> str:
    """Return where the daemon's configuration lies when nothing is said: an ordinary user has one of his own."""
    if os.geteuid() == 0 and not in_user_namespace():
        return "/etc/lamina/buildkitd.toml"
    return os.path.join(_config_home(), "lamina", "buildkitd.toml")


def load_environment() -> Environment:
    """Return everything rank 6 needs of the process environment."""
    from pathlib import Path

    from lamina.engine.options import Environment

    environ = os.environ
    docker_config = Path(environ.get("DOCKER_CONFIG") or Path(_home()) / ".docker")
    return Environment(
        root=Path(state_root()),
        search_path=_with_sbin(environ.get("PATH", "")),
        home=Path(_home()),
        docker_config=docker_config,
        proxies=proxies(),
        ca_file=environ.get("LAMINA_CA_FILE") or environ.get("SSL_CERT_FILE", ""),
        runtime=environ.get("LAMINA_RUNTIME", ""),
        userns=in_user_namespace(),
        config_files=tuple(map(Path, _config_files())),
        config_is_named=bool(environ.get("LAMINA_CONFIG")),
        cert_dirs=(docker_config / "certs.d", Path("/etc/docker/certs.d")),
        insecure_registries=tuple(_words(environ.get("LAMINA_INSECURE_REGISTRIES", ""))),
        cache_variables={name: value for name in CACHE_VARIABLES if (value := environ.get(name))},
        registry_mirrors=_mirrors(environ.get("LAMINA_REGISTRY_MIRRORS", "")),
        gc=_policies(),
        history=_keeping(environ.get("LAMINA_HISTORY_BUILDS", ""), environ.get("LAMINA_HISTORY_AGE", "")),
    )


def _keeping(builds: str, age: str) -> Keeping:
    """Return how much of the records of builds is kept, as two variables say it."""
    from lamina.engine.upkeep.amounts import parse_seconds
    from lamina.errors import InputError
    from lamina.history.keeping import MAX_BUILDS, Keeping

    if builds and not (builds.isascii() and builds.isdigit() and 0 < int(builds[:9]) == int(builds)):
        raise InputError(f"LAMINA_HISTORY_BUILDS={builds[:40]!r} is not a number of builds", hint="1 or more")
    return Keeping(int(builds) if builds else MAX_BUILDS, parse_seconds(age, "LAMINA_HISTORY_AGE"))


def _policies() -> Policies:
    """Return what is kept on disk: by the configuration's `[gc]`, and the ceiling of LAMINA_MAX_STORAGE."""
    from dataclasses import replace

    from lamina.engine.upkeep.amounts import parse_amount
    from lamina.engine.upkeep.policy import Policies, parse_policies

    policies = Policies()
    for path in _config_files():
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read(1 << 20)
        except OSError:
            continue  # who needs what else stands in it says what is wrong
        if "gc" in text:
            from lamina.config.registries import parse_gc

            policies = parse_policies(parse_gc(text, path), "gc")
        break
    ceiling = parse_amount(os.environ.get("LAMINA_MAX_STORAGE", ""), "LAMINA_MAX_STORAGE")
    return replace(policies, max_storage=ceiling) if ceiling else policies


def _config_files() -> list[str]:
    """Return where the configuration may lie: as named, or the user's own before the machine's."""
    named = os.environ.get("LAMINA_CONFIG", "")
    if named:
        return [os.path.abspath(named)]
    return [os.path.join(_config_home(), "lamina", "lamina.toml"), "/etc/lamina/lamina.toml"]


def _config_home() -> str:
    config = os.environ.get("XDG_CONFIG_HOME", "")
    return config if os.path.isabs(config) else os.path.join(_home(), ".config")


def _home() -> str:
    return os.environ.get("HOME") or os.path.expanduser("~")


def _with_sbin(path: str) -> str:
    """Return PATH with the folders of administrators' programs, where runtimes often lie, added."""
    folders = [folder for folder in path.split(":") if folder]
    return ":".join([*folders, *(folder for folder in _SEARCH_PATH.split(":") if folder not in folders)])


def proxies() -> dict[str, str]:
    """Return the proxy settings by lower-case name; the lower-case variable wins, as curl has it."""
    found = {}
    for name in _PROXIES:
        value = os.environ.get(name) or os.environ.get(name.upper(), "")
        if value:
            found[name] = value
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _mirrors(text: str) -> dict[str, tuple[str, ...]]:
    """Parse `registry=mirror,mirror;registry=mirror`."""
    found = {}
    for part in text.split(";"):
        registry, equals, mirrors = part.partition("=")
        if equals and registry.strip():
            found[registry.strip()] = tuple(_words(mirrors))
    return found
