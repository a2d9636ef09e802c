"""Compile src/tfthaw/proto/schema/*.proto into descriptors.bin (`make schema`); needs grpcio-tools."""

from pathlib import Path

import grpc_tools
from grpc_tools import protoc

PROTO = Path(__file__).parents[1] / "src" / "tfthaw" / "proto"


def main() -> int:
    schema = PROTO / "schema"
    status: int = protoc.main([
        "protoc", f"-I{schema}", f"-I{Path(grpc_tools.__file__).parent / '_proto'}", "--include_imports",
        f"--descriptor_set_out={PROTO / 'descriptors.bin'}", *(str(path) for path in sorted(schema.glob("*.proto"))),
    ])  # fmt: skip
    return status


if __name__ == "__main__":
    raise SystemExit(main())
