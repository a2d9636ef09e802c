"""Records <-> IR, both ways and lossless.

The one place that knows both protobuf messages and the IR. `to_proto(from_proto(x)) == x` holds for every message here:
what the IR does not model travels as opaque bytes.
"""
