"""A frontend that runs in the daemon's process: every file below `names/` of the context gets a greeting.

PYTHONPATH=examples/frontends lamina serve --addr unix:///run/lamina/lamina.sock --frontend greeting=greeting:build
buildctl --addr unix:///run/lamina/lamina.sock build --frontend greeting --local context=. --output type=local,dest=out
"""

from lamina import llb
from lamina.errors import InputError
from lamina.frontend import Answer, Gateway


def build(gateway: Gateway) -> Answer:
    """Make one file `/greetings/NAME` for each name."""
    word = gateway.opts.get("build-arg:WORD", "Hello")
    names = gateway.solve(llb.local("context", include=["names"])).read_dir("names")
    if not names:
        raise InputError("there is nobody to greet", hint="put a file for each name below names/")
    state = llb.scratch().mkdir("/greetings")
    for name in names:
        state = state.mkfile(f"/greetings/{name}", f"{word}, {name}!\n".encode())
    if len(names) > 100:
        gateway.warn(f"that are many: {len(names)}")
    return Answer(gateway.solve(state), config={"config": {"Labels": {"word": word}}})
