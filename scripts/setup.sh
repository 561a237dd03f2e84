#!/bin/sh
# Prepare this checkout: a virtual environment in .venv and the system packages that are missing.
#
# Usage: scripts/setup.sh demo|test|venv
#
# Runs as root or through sudo; installs a Debian package only if the program it brings is missing; can be run
# again at any time. Settings of the environment such as PIP_CERT, SSL_CERT_FILE, PIP_INDEX_URL and proxies
# reach pip and apt as they are.
set -eu
cd "$(dirname "$0")/.."
goal="${1:-test}"

say() { printf '==> %s\n' "$*"; }
fail() {
    printf 'setup: %s\n' "$*" >&2
    exit 1
}

# Path of a program, also looked for where administrators' programs lie.
have() { PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; }

updated=""
apt_install() {
    have apt-get || fail "please install these packages by hand (no apt-get here): $*"
    if [ "$(id -u)" = 0 ]; then
        sudo=""
    elif have sudo; then
        sudo="sudo"
    else
        fail "these packages are missing, and installing them needs root: apt-get install $*"
    fi
    if [ -z "$updated" ]; then
        say "apt-get update"
        $sudo apt-get update -qq || say "apt-get update failed; trying with the lists at hand"
        updated=yes
    fi
    say "apt-get install $*"
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# need PROGRAM PACKAGE: collect PACKAGE when PROGRAM is missing.
missing=""
need() { have "$1" || missing="$missing $2"; }

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    for candidate in ${PYTHON:-} /usr/bin/python3 python3 python3.13 python3.12 python3.11; do
        if have "$candidate" && recent "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
}

make_venv() {
    if [ ! -x .venv/bin/python ] || ! recent .venv/bin/python; then
        python="$(find_python)"
        if [ -z "$python" ]; then
            if have python3; then apt_install python3.11 python3.11-venv; else apt_install python3 python3-venv; fi
            python="$(find_python)"
        fi
        [ -n "$python" ] || fail "no Python 3.11 or newer found; set PYTHON=/path/to/python3"
        if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
        fi
        say "virtual environment in .venv ($("$python" --version))"
        rm -rf .venv
        "$python" -m venv .venv
    fi
    wanted="$(cat requirements-dev.lock pyproject.toml | sha256sum)"
    if [ "$(cat .venv/.installed 2>/dev/null)" != "$wanted" ]; then
        say "pip install -r requirements-dev.lock"
        .venv/bin/python -m pip --disable-pip-version-check install -q --require-hashes -r requirements-dev.lock
        .venv/bin/python -m pip --disable-pip-version-check install -q --no-deps --no-build-isolation -e .
        printf '%s\n' "$wanted" >.venv/.installed
    fi
}

case "$goal" in
venv) ;;
demo)
    have runc || need crun crun
    need mmdebstrap mmdebstrap
    [ "$(id -u)" = 0 ] || need newuidmap uidmap
    ;;
test)
    need crun crun
    need busybox busybox-static
    need mmdebstrap mmdebstrap
    need newuidmap uidmap
    need skopeo skopeo
    need umoci umoci
    need bsdtar libarchive-tools
    need buildah buildah
    need dockerd docker.io
    need docker docker.io
    need docker-registry docker-registry
    need strace strace
    need getfattr attr
    need zsh zsh
    need fish fish
    need ssh-add openssh-client
    # not every release of Debian has it
    if [ ! -x /usr/libexec/docker/cli-plugins/docker-buildx ] && apt-cache show docker-buildx >/dev/null 2>&1; then
        need docker-buildx docker-buildx
    fi
    missing="$(printf '%s' "$missing" | tr ' ' '\n' | sort -u | tr '\n' ' ')"
    ;;
*) fail "usage: scripts/setup.sh demo|test|venv" ;;
esac

# shellcheck disable=SC2086  # a list of words on purpose
if [ -n "$(printf '%s' "$missing" | tr -d ' ')" ]; then
    if [ "$goal" = demo ]; then
        apt_install $missing
    else
        # A package this release lacks must not keep the rest away: its tests are skipped then.
        for package in $missing; do
            (apt_install "$package") || say "no $package: tests that need it will be skipped"
            updated=yes
        done
    fi
fi
make_venv
if [ "$goal" = test ] && have npm && [ ! -x .cache/azurite/node_modules/.bin/azurite-blob ]; then
    say "npm install azurite"
    npm install --prefix .cache/azurite --no-audit --no-fund --loglevel=error azurite@3.35.0 >/dev/null ||
        say "no azurite: tests that need it will be skipped"
fi
