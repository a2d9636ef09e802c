"""The limits that readers hold against hostile input.

A file can claim any size in a few bytes. Readers compare each claim with the file's own size first, which
refuses most lies for free; these limits bound what remains. They are explicit arguments everywhere, with
one default; nothing here is global state.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a reader accepts before it refuses with `LimitError`.

    Attributes:
        max_tensor_bytes: Bytes of one tensor; a splat (one stored value for a whole shape) can claim more than
            its file has.
        max_index_bytes: Bytes of one table that is held in memory (index of a checkpoint, header of safetensors).
        max_block_bytes: Bytes of one table block once decompressed.
        max_message_bytes: Bytes of one protobuf message held in memory, big constants apart.
        max_nodes: Nodes of one graph or function: each takes about two kilobytes in memory, and as little as two bytes
            in a file.
        max_objects: Objects and edges of one object graph that are looked at: each takes about a kilobyte in memory. A
            model of a thousand Keras layers has about a hundred thousand.
        max_depth: Nesting of messages, functions and groups.
        max_rank: Dimensions of a shape. TensorFlow itself stops at 254.
        max_inflation: Decompressed bytes for one compressed byte, in archives. DEFLATE cannot pass about 1032.
    """

    max_tensor_bytes: int = 1 << 40
    max_index_bytes: int = 1 << 30
    max_block_bytes: int = 1 << 28
    max_message_bytes: int = (1 << 31) - 1  # no protobuf reader opens more
    max_nodes: int = 1_000_000
    max_objects: int = 150_000
    max_depth: int = 100  # protobuf's own default for nested messages
    max_rank: int = 254
    max_inflation: int = 1100


DEFAULT_LIMITS = Limits()
