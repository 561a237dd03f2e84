"""The names under which clients call, and are called."""

import pytest

from lamina.api import services


@pytest.mark.parametrize(
    ("service", "method", "path"),
    [
        (services.CONTROL, "Solve", "/moby.buildkit.v1.Control/Solve"),
        (services.LLB_BRIDGE, "Ping", "/moby.buildkit.v1.frontend.LLBBridge/Ping"),
        (services.FILE_SYNC, "DiffCopy", "/moby.filesync.v1.FileSync/DiffCopy"),
        (services.FILE_SEND, "DiffCopy", "/moby.filesync.v1.FileSend/DiffCopy"),
        (services.AUTH, "FetchToken", "/moby.filesync.v1.Auth/FetchToken"),
        (services.SECRETS, "GetSecret", "/moby.buildkit.secrets.v1.Secrets/GetSecret"),
        (services.SSH, "ForwardAgent", "/moby.sshforward.v1.SSH/ForwardAgent"),
        (services.UPLOAD, "Pull", "/moby.upload.v1.Upload/Pull"),
        (services.CONTENT, "Read", "/containerd.services.content.v1.Content/Read"),
    ],
)
def test_methods_are_found_by_their_names(service, method, path):
    assert service.methods[method].path == path


def test_streams_are_told_from_single_messages():
    """B22: one call gives many events of progress; the session goes both ways."""
    assert (services.CONTROL.Status.client_streams, services.CONTROL.Status.server_streams) == (False, True)
    assert (services.CONTROL.Session.client_streams, services.CONTROL.Session.server_streams) == (True, True)


def test_an_unknown_method_is_told_by_name():
    with pytest.raises(AttributeError, match=r"moby\.buildkit\.v1\.Control has no method Nothing"):
        _ = services.CONTROL.Nothing
