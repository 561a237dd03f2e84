"""A frontend in a container, for files of a language of its own.

Such as this `Recipe`:

    # syntax=registry.example/recipe
    from registry.example/base
    run apt-get install -y soup
    file /etc/menu soup of the day

Its image holds this file, Python and lamina; see the Dockerfile beside it. Build it, push it, and name it in the first
line of a recipe; then `docker buildx build -f Recipe .` and `buildctl build --frontend gateway.v0` know what to do.
"""

import os
import sys

from lamina import llb
from lamina.errors import InputError
from lamina.frontend import Answer, Gateway, run_in_container


def build(gateway: Gateway) -> Answer:
    """Turn a recipe into a graph: one step for each line."""
    name = gateway.opts.get("filename", "Dockerfile")
    text = gateway.read_local("dockerfile", name).decode()
    state, config = llb.scratch(), {"config": {}}
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        if word == "from":
            reference, config = gateway.image_config(rest)
            state = llb.image(reference)
            for setting in config.get("config", {}).get("Env") or []:
                state = state.with_env(*setting.split("=", 1))
        elif word == "run":
            state = state.run(rest)
        elif word == "file":
            path, _, content = rest.partition(" ")
            state = state.mkfile(path, f"{content}\n".encode())
        else:
            raise InputError(f"{name}:{number}: no such word: {word!r}", hint="from, run or file")
    return Answer(gateway.solve(state), config)


if __name__ == "__main__":
    sys.exit(run_in_container(build, os.environ))
