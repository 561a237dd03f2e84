"""Who judges the sources of a client's build: the daemon's owner, the client's policy, and the client itself."""

from __future__ import annotations

from typing import cast

from lamina.api.pb import control_pb2
from lamina.api.pb import policysession_pb2 as ps
from lamina.api.services import POLICY_VERIFIER
from lamina.bridge.asking import Check
from lamina.cancel import Cancel
from lamina.daemon.sessions import Sessions
from lamina.errors import InputError
from lamina.policy.read import policy_of
from lamina.policy.values import Policy, PolicyError, Source
from lamina.tunnel.call import RpcError

_JUDGING_S = 600.0


def policies_of(request: control_pb2.SolveRequest, owner: Policy | None) -> list[Policy]:
    """Return the policies of a build, in the order in which they are asked.

    Raises:
        InputError: the client's is none.
    """
    found = [owner] if owner is not None else []
    if request.HasField("SourcePolicy"):
        found.append(policy_of(request.SourcePolicy, "the client's policy"))
    return found


def judging(sessions: Sessions, name: str, cancel: Cancel) -> Check:
    """Return what calls the client that judges sources, in its session of that name.

    Raises:
        NotFoundError: there is no such session; InputError: it does not offer that.
    """
    connected, method = sessions.wait(name, cancel), POLICY_VERIFIER.CheckPolicy
    if method.path.lower() not in {one.lower() for one in connected.info.methods}:
        raise InputError("the session named by SourcePolicySession does not judge sources (CheckPolicy)")

    def check(question: ps.CheckPolicyRequest) -> ps.CheckPolicyResponse:
        try:
            answer = connected.peer.unary(method, question, cancel=cancel, timeout_s=_JUDGING_S)
        except RpcError as error:
            source = Source(question.Source.Source.identifier).shown
            raise PolicyError(f"the client's policy cannot judge {source!r}: {error.message}", denied=source) from error
        return cast(ps.CheckPolicyResponse, answer)

    return check
