"""Frontends in Python: programs that turn a language of their own into a graph.

One interface, two places to run: in the daemon's process (`lamina serve --frontend NAME=MODULE:FUNCTION`), or in a
container like any frontend of BuildKit's (`# syntax=IMAGE`), where `run_in_container` speaks for it.

    from lamina import llb
    from lamina.frontend import Answer, Gateway

    def build(gateway: Gateway) -> Answer:
        text = gateway.read_local("dockerfile", gateway.opts.get("filename", "Dockerfile"))
        state = llb.scratch().mkfile("/greeting", text.upper())
        return Answer(gateway.solve(state), config={"config": {"Cmd": ["/greeting"]}})
"""

from lamina.frontend.interface import Answer, Frontend, Gateway, Reference
from lamina.frontend.remote import run_in_container

__all__ = ["Answer", "Frontend", "Gateway", "Reference", "run_in_container"]
