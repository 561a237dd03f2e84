"""Repositories and graphs that want more than to be checked out. B6; CVE numbers name the tricks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.cancel import Cancel
from lamina.errors import Error, InputError, MachineError, NetworkError, NotYetError
from lamina.git_url import check_ref, is_commit, read_remote
from lamina.source.git_checkout import submodule_remote
from lamina.source.git_program import GitError, GitProgram, _Words
from lamina.source.git_spec import GitSpec, parse_source, read_refs
from support.git_place import spec
from support.git_server import Repository


@pytest.mark.parametrize(
    "rest",
    [
        "h/r#--upload-pack=touch x",
        "h/r#-x",
        "h/r#a b",
        "h/r#main:../../etc",
        "h/r#a\nb",
        "-oProxyCommand=x/r",
        "h/\n",
        "file:///etc",
        "ext::sh -c x",
    ],
)
def test_option_injection_by_the_identifier(rest):
    """CVE-2019-13139: a graph from elsewhere is checked as a Dockerfile is."""
    with pytest.raises(InputError):
        parse_source(rest, {})


@pytest.mark.parametrize(
    "attrs",
    [
        {"git.fullurl": "file:///etc"},
        {"git.fullurl": "ext::sh -c touch% x"},
        {"git.fullurl": "fd::3"},
        {"git.fullurl": "--upload-pack=x"},
        {"git.fullurl": "ssh://-oProxyCommand=x/r"},
        {"git.fullurl": "/etc/passwd"},
        {"git.fullurl": "https://h/r\nx"},
        {"git.checksum": "zz"},
        {"git.mtime": "whenever"},
        {"git.fetchbycommit": "true"},
    ],
)
def test_option_injection_by_the_attributes(attrs):
    with pytest.raises(InputError):
        parse_source("h/r", attrs)


@pytest.mark.parametrize("name", ["git.sig.pubkey", "git.bundle", "git.checkoutbundle", "git.tomorrow"])
def test_what_is_not_honoured_is_refused(name):
    """A signature that was asked for is never passed over."""
    with pytest.raises(NotYetError):
        parse_source("h/r", {name: "x"})


def test_a_list_of_refs_with_rubbish():
    asked = GitSpec(read_remote("h/r"), "main")
    for listing in (b"ref: -x\tHEAD\n", b"--output=x\trefs/heads/main\n", b"0" * 39 + b"\trefs/heads/main\n"):
        with pytest.raises((NetworkError, InputError)):
            read_refs(asked, listing)


LISTINGS = st.lists(
    st.sampled_from(
        [
            b"0" * 40,
            b"a" * 64,
            b"ref: ",
            b"refs/heads/",
            b"refs/tags/",
            b"main",
            b"^{}",
            b"HEAD",
            b"\t",
            b"\n",
            b"-",
            b"\xff",
        ]
    ),
    max_size=20,
).map(b"".join)


@given(LISTINGS | st.binary(max_size=80), st.sampled_from(["", "main", "refs/tags/main", "HEAD"]))
def test_any_list_of_refs_gives_a_sound_pin_or_an_error(listing, ref):
    """Hashes are whole, and what stands in for a ref is one."""
    try:
        pin = read_refs(GitSpec(read_remote("h/r"), ref), listing)
    except (InputError, NetworkError):
        return
    assert is_commit(pin.object) and is_commit(pin.commit)
    assert check_ref(pin.ref) == pin.ref


def test_hooks_filters_and_templates_do_not_run(place, repository, server, tmp_path, monkeypatch):
    """LFS and other filters, hooks, and the user's own settings: nothing of this machine takes part."""
    canary = tmp_path / "canary"
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    script.chmod(0o755)
    home = tmp_path / "home"
    (home / "templates/hooks").mkdir(parents=True)
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        (home / "templates/hooks" / hook).symlink_to(script)
    (home / ".gitconfig").write_text(
        f"[init]\ntemplateDir = {home}/templates\n[core]\nhooksPath = {home}/templates/hooks\nfsmonitor = {script}\n"
        f'[filter "lfs"]\nsmudge = {script}\nprocess = {script}\nrequired = true\n[credential]\nhelper = {script}\n'
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(home / "templates"))
    repository.commit({".gitattributes": "*.bin filter=lfs -text\n", "big.bin": "version https://git-lfs\n"})

    out = place.get(spec(server, keepgitdir="true"))

    assert (out / "big.bin").read_text() == "version https://git-lfs\n"
    assert not canary.exists() and not (out / ".git/hooks").exists()


@pytest.mark.parametrize(
    "entries",
    [
        [("100644", ".git", "gitdir: /etc")],
        [("120000", ".git", "/etc")],
        [("100644", "..", "x")],
        [("100644", "a/b", "x")],
        [("100644", "/etc", "x")],
        [("120000", "link", "/CANARY"), ("100644", "link/file", "x")],
        [("100644", "git~1", "x")],
    ],
    ids=["dotgit", "dotgit-link", "dotdot", "slash", "absolute", "through-link", "ntfs"],
)
def test_paths_that_leave_the_tree(place, repository, server, tmp_path, entries):
    """CVE-2014-9390, CVE-2021-21300: refused as a whole, or harmless."""
    canary = tmp_path / "outside"
    canary.mkdir()
    repository.commit_tree([(mode, name, text.replace("/CANARY", str(canary))) for mode, name, text in entries], "evil")

    try:
        out = place.get(spec(server, "evil"))
    except Error:
        out = None

    assert list(canary.iterdir()) == []
    assert not (place.folder / "file").exists()
    if out is not None:
        assert not os.path.lexists(out / ".git")


def test_a_git_directory_in_a_subtree(place, repository, server):
    """CVE-2014-9390: also deeper down, and in other cases."""
    blob = repository.git("hash-object", "-w", "--stdin", stdin=b"[core]\nfsmonitor = touch /tmp/x\n")
    inner = repository.git("mktree", "--missing", stdin=f"100644 blob {blob}\tconfig\n".encode())
    middle = repository.git(
        "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=b"40000 .GIT\0" + bytes.fromhex(inner)
    )
    repository.commit_tree([("40000", "sub", middle)], "evil")

    with pytest.raises(Error, match="invalid path"):
        place.get(spec(server, "evil"))


# -- submodules


def evil_submodule(repository: Repository, gitmodules: str, path: str = "lib") -> None:
    """Make the branch `evil` with a submodule at `path`."""
    commit = repository.git("rev-parse", "HEAD")
    repository.commit_tree([("100644", ".gitmodules", gitmodules), ("160000", path, commit)], "evil")


def section(url: str, name: str = "lib", more: str = "") -> str:
    return f'[submodule "{name}"]\n\tpath = lib\n\turl = "{url}"\n{more}'


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/x",
        "/etc/x",
        "ext::sh -c touch% /tmp/canary",
        "-u./payload",
        "--upload-pack=touch x",
        "ssh://-oProxyCommand=touch x/r",
        "fd::0",
        "../../../../../etc",
        "https://h/a\\nb",
        "",
    ],
)
def test_submodule_addresses(place, repository, server, url):
    """CVE-2017-1000117, CVE-2018-17456, CVE-2022-39253: the same transports as for the source itself."""
    evil_submodule(repository, section(url))

    with pytest.raises(InputError):
        place.get(spec(server, "evil"))


@pytest.mark.parametrize("name", ["../../hooks", "..", ".git/x", "a/../b", "a\\\\b", "-x"])
def test_submodule_names(place, repository, server, name):
    """CVE-2018-11235: a name becomes a path when `.git` is kept."""
    evil_submodule(repository, section("../r/.git", name))

    with pytest.raises(InputError, match="a submodule called"):
        place.get(spec(server, "evil", keepgitdir="true"))


def test_submodule_repositories_inside_each_other(place, repository, server):
    """CVE-2019-1387 and later."""
    text = section("../.git", "a") + '[submodule "a/hooks"]\n\tpath = two\n\turl = ../.git\n'
    commit = repository.git("rev-parse", "HEAD")
    repository.commit_tree(
        [("100644", ".gitmodules", text), ("160000", "lib", commit), ("160000", "two", commit)], "evil"
    )

    with pytest.raises(InputError, match="a submodule called"):
        place.get(spec(server, "evil"))


def test_an_update_command_is_not_run(place, repository, server, tmp_path):
    """CVE-2019-19604: only `none` means something."""
    evil_submodule(repository, section(f"{server.url}/r/.git", more=f"\tupdate = !touch {tmp_path}/canary\n"))

    assert (place.get(spec(server, "evil")) / "lib/file").exists()
    assert not (tmp_path / "canary").exists()


def test_gitmodules_as_a_link(place, repository, server):
    """It is read from the commit, and only if it is a file there."""
    commit = repository.git("rev-parse", "HEAD")
    repository.commit_tree([("120000", ".gitmodules", "/etc/passwd"), ("160000", "lib", commit)], "evil")

    with pytest.raises(Error, match="gitmodules"):
        place.get(spec(server, "evil"))


def test_a_submodule_through_a_link(place, repository, server, tmp_path):
    """CVE-2024-32002: a directory that is a link as well, when the submodule in it is written."""
    outside = tmp_path / "outside"
    (outside / "lib").mkdir(parents=True)
    commit = repository.git("rev-parse", "HEAD")
    below = repository.git("mktree", "--missing", stdin=f"160000 commit {commit}\tlib\n".encode())
    text = section("../.git").replace("path = lib", "path = a/lib")
    for number, twins in enumerate((("a", "a"), ("a", "A"))):
        link, folder = ("120000", twins[0], str(outside)), ("40000", twins[1], below)
        repository.commit_tree([("100644", ".gitmodules", text), link, folder], f"evil{number}")
        try:
            place.get(spec(server, f"evil{number}"))
        except Error:
            pass
        assert list(outside.iterdir()) == [outside / "lib"] and not list((outside / "lib").iterdir())


@pytest.mark.parametrize(
    ("parent", "url", "address"),
    [
        ("https://h/o/r.git", "../s.git", "https://h/o/s.git"),
        ("https://h/o/r.git/", "../../p/s", "https://h/p/s"),
        ("https://h/o/r", "./s", "https://h/o/r/s"),
        ("git@h:o/r.git", "../s.git", "git@h:o/s.git"),
        ("git@h:o/r.git", "../../p/s", "git@h:p/s"),
        ("https://u:p@h/o/r.git", "../s.git", "https://h/o/s.git"),
        ("https://h/o/r", "git@g:x/y", "git@g:x/y"),
    ],
)
def test_relative_submodule_addresses(parent, url, address):
    """gitmodules(5): relative to the repository that the submodule is in."""
    assert submodule_remote(read_remote(parent), url, "lib").address == address


@pytest.mark.parametrize("url", ["../../../x", "../..", "./../../..", "../../../../../../x"])
def test_a_relative_address_stays_on_its_host(url):
    with pytest.raises(InputError):
        submodule_remote(read_remote("https://h/o/r.git"), url, "lib")


# -- what a server says


def test_words_of_a_server_are_cleaned(tmp_path: Path):
    """Terminal controls and secrets do not reach the log; of progress only a line now and then does."""
    lines: list[bytes] = []
    times = iter(range(0, 100, 2))
    words = _Words(lines.append, (b"hunter2",), clock=lambda: next(times))
    path = tmp_path / "said"
    path.write_bytes(
        b"remote: \x1b]0;ev\xc2\x9bil\x07hi hunter2\n"
        + b"".join(b"Receiving objects:  %d%%\r" % percent for percent in range(6))
        + b"Receiving objects: 100% (2/2), 1 KiB, done.\nFrom https://h/r\n * [new ref] a -> refs/lamina/a\n"
        + b"x" * 200_000
    )
    with path.open("rb") as stream:
        words.read(stream)

    assert lines[:4] == [
        b"remote: ]0;evilhi ***\n",
        b"Receiving objects:  2%\n",
        b"Receiving objects:  5%\n",
        b"Receiving objects: 100% (2/2), 1 KiB, done.\n",
    ]
    assert sum(len(line) for line in lines[4:]) >= 200_000


def test_output_has_a_cap(tmp_path: Path):
    git = GitProgram(os.environ["PATH"], tmp_path, {})

    with pytest.raises(NetworkError, match="more than 10 bytes"):
        git.run(["help", "-a"], Cancel(), max_output=10)


def test_transports_are_an_allow_list(tmp_path: Path, repository):
    """`file://` works only where our own code asks for it."""
    git = GitProgram(os.environ["PATH"], tmp_path, {})

    for url in (f"file://{repository.folder}", str(repository.folder), "ext::sh -c exit"):
        with pytest.raises(GitError, match="not allowed"):
            git.run(["ls-remote", "--", url], Cancel())
    assert git.run(["ls-remote", "--", f"file://{repository.folder}"], Cancel(), protocols="file")


def test_a_git_that_is_too_old(tmp_path: Path):
    """One that does not know settings by environment would read its own, and send no secret."""
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.30.2\n")
    old.chmod(0o755)

    with pytest.raises(MachineError, match=r"2\.31 or newer"):
        GitProgram(f"{tmp_path}:/bin:/usr/bin", tmp_path, {}).run(["help"], Cancel())
