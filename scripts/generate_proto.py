"""Generate `pb` of the rooms `llb` and `api` from the .proto files beside it: `python scripts/generate_proto.py`."""

import sys
from importlib.resources import files
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

SOURCE = Path(__file__).parent.parent / "src"
ROOMS = ("llb", "api")


def main() -> int:
    include = [f"-Ilamina/{room}/pb={SOURCE / 'lamina' / room / 'proto'}" for room in ROOMS]
    # messages of Google's own come with these packages
    common = [f"-I{files('grpc_tools') / '_proto'}", f"-Igoogle/rpc={Path(status_pb2.__file__).parent}"]
    named = []
    for room in ROOMS:
        out = SOURCE / "lamina" / room / "pb"
        out.mkdir(exist_ok=True)
        (out / "__init__.py").write_text(f'"""Generated from `{room}/proto`; do not edit."""\n')
        named += [f"lamina/{room}/pb/{path.name}" for path in sorted((SOURCE / "lamina" / room / "proto").iterdir())]
    return int(protoc.main(["protoc", *include, *common, f"--python_out={SOURCE}", f"--pyi_out={SOURCE}", *named]))


if __name__ == "__main__":
    sys.exit(main())
