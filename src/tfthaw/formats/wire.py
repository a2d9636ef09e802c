"""Protobuf messages without their big constants: cut on reading, splice on writing.

A frozen graph may hold gigabytes in the `tensor_content` of its Const nodes. `cut` reads such a file into a small
message in which a token stands for each big content, and says where in the file each content lies. `splice` is the
reverse: it writes a message with tokens, and where a token stands it streams a payload. So no message with those bytes
is ever built, in either direction, and a file of any size goes through in constant memory.

This module knows the wire format and, through the schema, which paths lead to a TensorProto. It does not know what a
graph means, and it opens and names no file.

Source: the Protocol Buffers encoding specification (protobuf.dev, "Encoding"). A message is a run of fields:

    | part    | bytes                                                    |
    | key     | varint: field number << 3 or wire type                   |
    | value 0 | varint                                                   |
    | value 1 | 8 bytes                                                  |
    | value 2 | length (varint), then that many bytes: string, message   |
    | value 3 | fields up to the key of wire type 4 with the same number |
    | value 5 | 4 bytes                                                  |

A big content is field 4 of a TensorProto; each message around it has a length in front, which changes with it.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Protocol

from tfthaw import proto
from tfthaw._files import FileSlice, Progress
from tfthaw.errors import FormatError, LimitError, StructureError, TruncatedError
from tfthaw.formats.varint import encode_varint
from tfthaw.formats.wire_check import LENGTH, WireError, first_fault, read_key, read_length, skip_value
from tfthaw.limits import DEFAULT_LIMITS, Limits

THRESHOLD_BYTES = 4096
"""Contents above this stay in the file: below it, a token and a slice cost more than the bytes."""

_NODE_LISTS = ("tensorflow.GraphDef", "tensorflow.FunctionDef")
_MANY_NODES = 1 << 14
_MIN_NODE_BYTES = 8  # a tag and a length, and those of a name and an op of a letter each

_TENSOR = "tensorflow.TensorProto"
_CONTENT = 4  # TensorProto.tensor_content

# A token: mark of this process | nonce of one reader or writer | index. No file can hold one that was not put there by
# this process, and one whose payload is lost is recognised instead of being written out as if it were a value.
_MARK = os.urandom(8)
_NONCE_BYTES = 16
_INDEX_BYTES = 8
TOKEN_BYTES = len(_MARK) + _NONCE_BYTES + _INDEX_BYTES

_Routes = Mapping[str, Mapping[int, str | None]]
_Part = bytes | memoryview


class Payload(Protocol):
    """What can stand behind a token: a `Tensor` or a `FileSlice`."""

    @property
    def nbytes(self) -> int:
        """Bytes that `chunks` will give."""

    def chunks(self) -> Iterator[Any]:
        """Give the bytes in bounded pieces, each valid until the next one is asked for."""

    def copy_to(self, file: BinaryIO, progress: Progress | None = None) -> int:
        """Append the bytes to a file, and return how many they were."""


@dataclass(frozen=True)
class Cut:
    """A message whose big contents stayed in the file.

    Attributes:
        message: The message; each big `tensor_content` is a token.
        contents: Where in the file the bytes lie that each token stands for.
    """

    message: Any
    contents: dict[bytes, FileSlice]


class Contents(Mapping[bytes, Payload]):
    """Payloads by their tokens, for messages that are about to be written.

    Args:
        known: Contents of messages that were read, to be written again.
    """

    def __init__(self, *known: Mapping[bytes, Payload]) -> None:
        self._new_token = _Tokens()
        self._payloads: dict[bytes, Payload] = {}
        self._adopted: dict[int, Mapping[bytes, Payload]] = {}
        for contents in known:
            self.adopt(contents)

    def adopt(self, known: Mapping[bytes, Payload]) -> None:
        """Take in the contents of a message that was read, whose tokens stay valid; a second time costs nothing."""
        if known and id(known) not in self._adopted:
            self._adopted[id(known)] = known  # held, so that the id stays its own
            self._payloads.update(known)

    def add(self, payload: Payload) -> bytes:
        """Return a new token, to be put into a `tensor_content` in place of the payload."""
        token = self._new_token()
        self._payloads[token] = payload
        return token

    def __getitem__(self, token: bytes) -> Payload:
        return self._payloads[token]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._payloads)

    def __len__(self) -> int:
        return len(self._payloads)


@dataclass(frozen=True)
class Place:
    """Where one payload stands in what is written.

    Attributes:
        token: The payload's token.
        offset: Its first byte.
        length: Its bytes.
    """

    token: bytes
    offset: int
    length: int


class Pieces:
    """A message with its payloads, as the exact bytes that will be written.

    Attributes:
        total_bytes: The length of the whole.
        every_place: Each payload in the order of the bytes; one that is used twice comes twice.
        places: Token -> (offset, length) of its first place.
    """

    def __init__(self, parts: list[_Part | _Hole]) -> None:
        self._parts = parts
        found: list[Place] = []
        position = 0
        for part in parts:
            if isinstance(part, _Hole):
                found.append(Place(part.token, position, part.payload.nbytes))
                position += part.payload.nbytes
            else:
                position += len(part)
        self.total_bytes = position
        self.every_place = tuple(found)
        self.places: dict[bytes, tuple[int, int]] = {}
        for place in found:
            self.places.setdefault(place.token, (place.offset, place.length))

    def __iter__(self) -> Iterator[Any]:
        """Yield the bytes in order; a piece is valid until the next one is asked for.

        Raises:
            StructureError: A payload gives more or fewer bytes than it said.
        """
        for part in self._parts:
            if not isinstance(part, _Hole):
                yield part
                continue
            done = 0
            for chunk in part.payload.chunks():
                done += len(chunk)
                yield chunk
            part.require(done)

    def write(self, file: BinaryIO, progress: Progress | None = None) -> None:
        """Write everything to a file.

        Raises:
            StructureError: A payload gives more or fewer bytes than it said.
        """
        for part in self._parts:
            if isinstance(part, _Hole):
                part.require(part.payload.copy_to(file, progress))
                continue
            file.write(part)
            if progress is not None:
                progress(len(part))


def cut(source: FileSlice, root: Any, limits: Limits = DEFAULT_LIMITS, *, threshold: int = THRESHOLD_BYTES) -> Cut:
    """Read a message and leave its big contents in the file.

    The file is walked only along paths of the schema that can lead to a TensorProto, and only into fields larger than
    the threshold; the rest is copied in runs. Unknown fields and the order of the fields survive.

    Args:
        source: Where the message is; the file must stay open while the contents are in use.
        root: A message class of `tfthaw.proto`, such as `proto.GraphDef`.
        limits: Bounds for nesting and for the size of the message without its big contents.
        threshold: A `tensor_content` of more bytes than this is cut out.

    Returns:
        The message and the places of its contents.

    Raises:
        TruncatedError: The file ends within a field.
        FormatError: The bytes are no such message.
        LimitError: The message is too large or too deep.
    """
    data = source.view().data
    contents: dict[bytes, FileSlice] = {}
    new_token = _Tokens()

    def replace(start: int, end: int) -> bytes:
        token = new_token()
        contents[token] = source.file.slice(source.offset + start, end - start)
        return token

    descriptor, path = root.DESCRIPTOR, source.file.path
    routes = _routes(descriptor.full_name)
    rewrite = _Rewrite(
        data, routes, limits.max_depth, lambda start, end: end - start > threshold, replace, max_nodes=limits.max_nodes
    )
    try:
        parts, size = rewrite.message(0, len(data), descriptor.full_name, 1)
    except WireError as error:
        raise _in_file(error, source, descriptor.name) from error
    if size > limits.max_message_bytes:
        raise LimitError(
            f"the message has {size} bytes without its big tensors, {limits.max_message_bytes} are allowed", path=path
        )
    try:
        message = proto.parse(root, b"".join(parts), path=path)
    except FormatError as error:
        fault = first_fault(data, descriptor, max_depth=limits.max_depth)
        if fault is None:
            raise
        raise _in_file(fault, source, descriptor.name) from error
    return Cut(message, contents)


def splice(message: Any, contents: Mapping[bytes, Payload]) -> Pieces:
    """Prepare a message for writing, with a payload in place of each token.

    Args:
        message: A message of `tfthaw.proto`; it is serialised with its maps sorted, so that equal messages give equal
            bytes.
        contents: What each token in the message stands for; tokens that are not in it may be there too.

    Returns:
        The bytes to be written, whose length and places are known before the first one is.

    Raises:
        StructureError: A token has no payload, or stands elsewhere than in a `tensor_content`.
    """
    data = proto.serialize(message)
    found = [match.start() for match in re.finditer(re.escape(_MARK), data)]
    if not found:
        return Pieces([data] if data else [])
    replaced = 0

    def wanted(start: int, end: int) -> bool:
        index = bisect_left(found, start)
        return index < len(found) and found[index] + TOKEN_BYTES <= end

    def replace(start: int, end: int) -> _Hole:
        nonlocal replaced
        token = data[start:end]
        payload = contents.get(token)
        if payload is None:
            raise StructureError(
                "a constant's value is not there: its place is held by a token of another artifact",
                where=f"{message.DESCRIPTOR.name}, byte {start}",
            )
        replaced += 1
        return _Hole(token, payload)

    name = message.DESCRIPTOR.full_name
    # what was built in memory and serialised is as deep as it is
    rewrite = _Rewrite(memoryview(data), _routes(name), len(data), wanted, replace)
    parts, _ = rewrite.message(0, len(data), name, 1)
    if replaced != len(found):
        raise StructureError(
            f"{len(found) - replaced} tokens of constants stand where no tensor_content is",
            where=message.DESCRIPTOR.name,
        )
    return Pieces(parts)


class _Tokens:
    """Makes tokens that no other reader or writer makes."""

    def __init__(self) -> None:
        self._prefix = _MARK + os.urandom(_NONCE_BYTES)
        self._count = 0

    def __call__(self) -> bytes:
        self._count += 1
        return self._prefix + self._count.to_bytes(_INDEX_BYTES, "big")


@dataclass(frozen=True)
class _Hole:
    """The place of a payload among the parts."""

    token: bytes
    payload: Payload

    def __len__(self) -> int:
        return self.payload.nbytes

    def require(self, done: int) -> None:
        """Refuse a payload that gave more or fewer bytes than it said."""
        if done != self.payload.nbytes:
            raise StructureError(f"a tensor of {self.payload.nbytes} bytes gave {done} when it was written")


class _Rewrite:
    """Copies a message's wire bytes with some contents replaced and the lengths around them corrected.

    Args:
        data: The message.
        routes: See `_routes`.
        max_depth: Bound for nesting.
        wanted: Whether to look into the field whose value is the given range.
        replace: Gives what stands for the content of the given range.
        max_nodes: Bound for the fields of a graph or function, nearly all of which are nodes.
    """

    def __init__(self, data: memoryview, routes: _Routes, max_depth: int, wanted: Callable[[int, int], bool],
                 replace: Callable[[int, int], bytes | _Hole], *, max_nodes: int = 1 << 62) -> None:
        self._data = data
        self._routes = routes
        self._max_depth = max_depth
        self._wanted = wanted
        self._replace = replace
        self._max_nodes = max_nodes

    def message(self, start: int, end: int, name: str, depth: int) -> tuple[list[Any], int]:
        """Rewrite one message.

        Returns:
            Its parts in order, one only where nothing was replaced, and the sum of their lengths.

        Raises:
            WireError: The bytes are no message.
        """
        data, wanted, route = self._data, self._wanted, self._routes.get(name, {})
        parts: list[Any] = []
        count = size = 0
        check = min(_MANY_NODES, self._max_nodes) if name in _NODE_LISTS else -1
        copied = position = start  # what lies before `copied` is in parts already
        while position < end:
            if count == check:
                check = self._checked(count, start, position)
            count += 1
            field = position
            key = data[position]
            position += 1
            if not 8 <= key <= 0x7F:
                key, position = read_key(data, field, end)
            if key & 7 != LENGTH:
                position = skip_value(data, key, position, end, self._max_depth)
                continue
            # one byte of length is the common case, and a graph of small nodes is nothing but these
            if position < end and data[position] < 0x80 and position + data[position] < end:
                value = position + 1
                position = value + data[position]
            else:
                value, position = read_length(data, position, end)
            number = key >> 3
            if number not in route or not wanted(value, position):
                continue
            inner, inner_size = self._value(value, position, route[number], depth)
            if inner:
                head = encode_varint(key) + encode_varint(inner_size)
                parts += (data[copied:field], head, *inner)
                size += field - copied + len(head) + inner_size
                copied = position
        parts.append(data[copied:end])
        return parts, size + end - copied

    def _checked(self, count: int, start: int, position: int) -> int:
        """Refuse a list of too many nodes, or of nodes too small to be any; return when to look again."""
        if count >= self._max_nodes:
            raise WireError(position, f"a graph of more than {self._max_nodes} nodes", beyond_limit=True)
        if position - start < count * _MIN_NODE_BYTES:
            found = f"{count} nodes in {position - start} bytes, fewer than nodes have"
            raise WireError(position, found, beyond_limit=True)
        return self._max_nodes

    def _value(self, start: int, end: int, target: str | None, depth: int) -> tuple[list[Any], int]:
        """Rewrite the value of one field; no parts where nothing in it was replaced."""
        if target is None:
            item = self._replace(start, end)
            return [item], len(item)
        if depth >= self._max_depth:
            raise WireError(start, f"messages nest deeper than {self._max_depth}", beyond_limit=True)
        parts, size = self.message(start, end, target, depth + 1)
        return (parts, size) if len(parts) > 1 else ([], size)


def _in_file(fault: WireError, source: FileSlice, name: str) -> FormatError:
    """Return the error for a fault at its place in the file."""
    kind = TruncatedError if fault.truncated else LimitError if fault.beyond_limit else FormatError
    hint = "the file was cut while it was written or copied" if fault.truncated else None
    return kind(
        f"the bytes are no {name}: {fault.message}",
        path=source.file.path, where=f"offset {source.offset + fault.offset}", hint=hint,
    )  # fmt: skip


@lru_cache(maxsize=16)
def _routes(root: str) -> _Routes:
    """Find the ways from a message to the contents of tensors.

    Returns:
        Message name -> field number -> the message that the field holds; None is the content itself. Messages and
        fields from which no TensorProto can be reached are not in it.
    """
    fields: dict[str, dict[int, str]] = {}
    waiting = [proto.message_class(root).DESCRIPTOR]
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name in fields:
            continue
        children = [field for field in descriptor.fields if field.message_type is not None]
        fields[descriptor.full_name] = {field.number: field.message_type.full_name for field in children}
        waiting += [field.message_type for field in children]
    if _TENSOR not in fields:
        return {}
    reaching = {_TENSOR}
    while True:
        more = {name for name, targets in fields.items() if not reaching.isdisjoint(targets.values())} - reaching
        if not more:
            break
        reaching |= more
    routes: dict[str, dict[int, str | None]] = {
        name: {number: target for number, target in fields[name].items() if target in reaching} for name in reaching
    }
    routes[_TENSOR][_CONTENT] = None
    return routes
