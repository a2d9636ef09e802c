"""Files that are one message, binary or text: what GraphDef, MetaGraphDef and SavedModel files have in common.

`kind_of` tells the three apart by content, never by name. `read_message` and `write_message` do the work for
`graph_def`, `meta_graph` and `saved_model`, which say what is special about each.

Source: graph.proto, meta_graph.proto and saved_model.proto of TensorFlow. Top-level fields, by which the three differ:

    | field | GraphDef          | MetaGraphDef     | SavedModel                         |
    | 1     | node (message)    | meta_info_def    | saved_model_schema_version (varint) |
    | 2     | library           | graph_def        | meta_graphs                        |
    | 3     | version (varint)  | saver_def        |                                    |
    | 4     | versions          | collection_def   |                                    |
    | 5     | debug_info        | signature_def    |                                    |
    | 6     |                   | asset_file_def   |                                    |
    | 7     |                   | object_graph_def |                                    |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

from tfthaw import proto
from tfthaw._files import Progress, SourceFile, human_bytes
from tfthaw.errors import FormatError, LimitError, UnsupportedError
from tfthaw.formats.wire import Payload, Pieces, cut, splice
from tfthaw.formats.wire_check import LENGTH, VARINT, WireError, fields, sample_fault
from tfthaw.limits import Limits
from tfthaw.proto.text import first_field, parse_text, to_text

MAX_MESSAGE_BYTES = (1 << 31) - 1
"""No protobuf reader opens a larger message: lengths are signed 32-bit numbers."""

MAX_TEXT_CONTENT_BYTES = 1 << 28
"""Big constants are held in memory to be written as text, where they take up to four times their size."""

_KINDS: dict[str, Any] = {
    "saved-model": proto.SavedModel, "meta-graph": proto.MetaGraphDef, "graph-def": proto.GraphDef
}  # fmt: skip


@dataclass(frozen=True)
class MessageFile:
    """A message that was read from a file.

    Attributes:
        message: The message; each big `tensor_content` is a token.
        contents: What the tokens stand for; the file stays open as long as one of them is held.
        is_text: Whether the file was in text form.
        path: The file.
        size: Its bytes.
        notes: What could not be kept, one sentence each.
    """

    message: Any
    contents: Mapping[bytes, Payload]
    is_text: bool
    path: str
    size: int
    notes: tuple[str, ...] = ()


AnyFile = TypeVar("AnyFile", bound=MessageFile)


def read_message(result: type[AnyFile], path: str, root: Any, limits: Limits) -> AnyFile:
    """Read a file that is one message, in whichever form it is.

    Raises:
        NotFoundError: There is no such file.
        FormatError: The file is empty, or is no such message.
    """
    source = SourceFile(path)
    name = root.DESCRIPTOR.name
    if source.size == 0:
        raise FormatError(f"the file is empty; a {name} was expected", path=source.path)
    is_text = first_field(source.read(0, min(source.size, 4096))) is not None
    contents: Mapping[bytes, Payload] = {}
    notes: list[str] = []
    if is_text:
        if source.size > limits.max_message_bytes:
            raise LimitError(
                f"the text has {source.size} bytes, {limits.max_message_bytes} are allowed", path=source.path
            )
        message = parse_text(root, source.read(0, source.size), source.path, notes=notes)
    else:
        parts = cut(source.slice(), root, limits)
        message, contents = parts.message, parts.contents
    if not message.ListFields():
        raise FormatError(f"nothing in the file is a field of a {name}", path=source.path)
    if not contents:
        source.close()
    return result(message, contents, is_text, source.path, source.size, tuple(notes))


def write_message(file: BinaryIO, message: Any, contents: Mapping[bytes, Payload], progress: Progress | None, *,
                  as_text: bool, hint: str) -> Pieces:
    """Write a message, its big contents streamed.

    Args:
        file: Where to write.
        message: The message; tokens stand for big contents.
        contents: What they stand for.
        progress: Called with the bytes of each piece.
        as_text: Write the text form; then the contents are held in memory.
        hint: What to do instead when the message is too large.

    Returns:
        What was written, with the places of the payloads (as text, there are none).

    Raises:
        UnsupportedError: The message is larger than any reader opens; nothing was written.
    """
    pieces = splice(message, contents)
    name = message.DESCRIPTOR.name
    if pieces.total_bytes > MAX_MESSAGE_BYTES:
        raise UnsupportedError(
            f"the {name} would have {pieces.total_bytes} bytes ({human_bytes(pieces.total_bytes)}), no reader opens "
            f"more than {MAX_MESSAGE_BYTES}", hint=hint,
        )  # fmt: skip
    if as_text:
        large = sum(place.length for place in pieces.every_place)
        if large > MAX_TEXT_CONTENT_BYTES:
            raise UnsupportedError(
                f"the {name} has {human_bytes(large)} of constants, too much for text", hint="write the binary form"
            )
        whole = proto.parse(type(message), b"".join(bytes(piece) for piece in pieces))
        pieces = Pieces([to_text(whole).encode()])
    pieces.write(file, progress)
    return pieces


def kind_of(source: SourceFile) -> str | None:
    """Tell which of the three messages a file is, by its content.

    Returns:
        `saved-model`, `meta-graph` or `graph-def`; None where it is none of them. A file that was cut is known for what
        it was.
    """
    name = first_field(source.read(0, min(source.size, 4096)))
    if name is not None:
        for kind, cls in _KINDS.items():
            if name in cls.DESCRIPTOR.fields_by_name:
                return kind
        return None
    data = source.view().data
    for strict in (True, False):  # a newer TensorFlow may have written fields that the schema does not know
        for kind, cls in _KINDS.items():
            fault = sample_fault(data, cls.DESCRIPTOR, strict=strict)
            if (fault is None or fault.truncated) and _is_plausible(kind, data):
                return kind
    return None


def _is_plausible(kind: str, data: memoryview) -> bool:
    try:
        if kind == "graph-def":
            return _is_graph(data, 0, len(data))
        return _is_meta_graph(data, 0, len(data)) if kind == "meta-graph" else _is_saved_model(data)
    except WireError:
        return False


def _is_saved_model(data: memoryview) -> bool:
    versioned = False
    for number, wire, start, end in fields(data, 0, len(data), most=8):
        if number == 1 and wire == VARINT:
            versioned = True
        elif number == 2 and wire == LENGTH and _is_meta_graph(data, start, end, needs_graph=not versioned):
            return True
    return versioned


def _is_meta_graph(data: memoryview, start: int, end: int, *, needs_graph: bool = False) -> bool:
    """Whether there is a graph, or else, unless one is needed, something that only a MetaGraphDef has."""
    seen = False
    for number, wire, inner, inner_end in fields(data, start, end, most=16):
        if number == 2:
            return (inner == inner_end and not needs_graph) or _is_graph(data, inner, inner_end)
        if number == 1 and wire == LENGTH:
            # field 1 of meta_info_def is a string, as is the first field of a node in a GraphDef: look at the others
            facts = fields(data, inner, inner_end, most=4)
            seen = seen or any(fact > 1 and first < last for fact, _, first, last in facts)
        seen = seen or number in (3, 5, 7)
    return seen and not needs_graph


def _is_graph(data: memoryview, start: int, end: int) -> bool:
    """Whether one of the first nodes has a name and an op, or there is a function, or versions alone."""
    numbers = set()
    for number, wire, inner, inner_end in fields(data, start, end, most=16):
        numbers.add(number)
        if number == 1 and wire == LENGTH and {1, 2} <= _names(data, inner, inner_end):
            return True
        if number == 2 and wire == LENGTH and _is_library(data, inner, inner_end):
            return True
    return 4 in numbers and numbers <= {3, 4}


def _is_library(data: memoryview, start: int, end: int) -> bool:
    for number, wire, inner, inner_end in fields(data, start, end, most=1):
        if number == 1 and wire == LENGTH:
            for part, part_wire, first, last in fields(data, inner, inner_end, most=4):
                if part == 1 and part_wire == LENGTH:
                    return 1 in _names(data, first, last)
    return False


def _names(data: memoryview, start: int, end: int) -> set[int]:
    """Return the numbers of those first fields of a message that hold a printable name."""
    found = set()
    for number, wire, first, last in fields(data, start, end, most=4):
        name = bytes(data[first : min(last, first + 512)]).decode("utf-8", "replace")
        if wire == LENGTH and name and name.isprintable():
            found.add(number)
    return found
