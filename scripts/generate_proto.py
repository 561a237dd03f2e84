"""Generate `lamina.llb.pb` from `llb/proto/*.proto`: `python scripts/generate_proto.py`."""

import sys
from pathlib import Path

from grpc_tools import protoc

LLB = Path(__file__).parent.parent / "src" / "lamina" / "llb"


def main() -> int:
    out = LLB / "pb"
    out.mkdir(exist_ok=True)
    (out / "__init__.py").write_text('"""Generated from `llb/proto`; do not edit."""\n')
    arguments = ["protoc", f"-I{LLB / 'proto'}", f"--python_out={out}", f"--pyi_out={out}"]
    return int(protoc.main([*arguments, str(LLB / "proto" / "ops.proto")]))


if __name__ == "__main__":
    sys.exit(main())
