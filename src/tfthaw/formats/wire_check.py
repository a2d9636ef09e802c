"""The wire format of protobuf, field by field, and where it is wrong.

`first_fault` finds the first place at which bytes are no message of a given schema: protobuf itself only says that they
are not. `fields` walks one message. Nothing here makes a message, and nothing copies.

Source: the Protocol Buffers encoding specification (protobuf.dev, "Encoding"); its table is drawn in `wire`.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as Field

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)

_WIRE_TYPES: dict[int, int] = {
    Field.TYPE_DOUBLE: FIXED64, Field.TYPE_FIXED64: FIXED64, Field.TYPE_SFIXED64: FIXED64,
    Field.TYPE_FLOAT: FIXED32, Field.TYPE_FIXED32: FIXED32, Field.TYPE_SFIXED32: FIXED32,
    Field.TYPE_STRING: LENGTH, Field.TYPE_BYTES: LENGTH, Field.TYPE_MESSAGE: LENGTH,
}  # fmt: skip
"""Wire type by field type; all others are varints."""


class WireError(Exception):
    """A place at which the wire format is wrong; whoever knows the file turns it into a `FormatError`.

    Attributes:
        offset: Where the broken field begins, counted from the first byte of the data.
        message: What is wrong.
        truncated: Whether the data ends too early.
        beyond_limit: Whether it is wrong only in passing a limit (nesting, nodes).
    """

    def __init__(self, offset: int, message: str, *, truncated: bool = False, beyond_limit: bool = False) -> None:
        super().__init__(message)
        self.offset = offset
        self.message = message
        self.truncated = truncated
        self.beyond_limit = beyond_limit


def read_varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read a varint.

    Returns:
        The number and the position after it.

    Raises:
        WireError: It has more than ten bytes, or the message ends within it.
    """
    value = shift = 0
    start = position
    while position < end:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError(start, "a number of more than ten bytes")
    raise WireError(start, "the message ends within a number", truncated=end == len(data))


def read_key(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read the key of a field, `number << 3 | wire type`, and return it with the position after it.

    Raises:
        WireError: There is no such field number.
    """
    key, after = read_varint(data, position, end)
    if not 8 <= key <= 0xFFFFFFFF:
        raise WireError(position, f"there is no field number {key >> 3}")
    return key, after


def read_length(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Read the length of a field's value and return where the value begins and ends.

    Raises:
        WireError: The value passes the end of its message.
    """
    length, start = read_varint(data, position, end)
    if start + length > end:
        raise WireError(
            position, f"a field of {length} bytes passes the end of its message by {start + length - end}",
            truncated=end == len(data),
        )  # fmt: skip
    return start, start + length


def skip_value(data: memoryview, key: int, position: int, end: int, max_depth: int) -> int:
    """Return the position after a value, given its key and its first byte.

    Raises:
        WireError: The value is none, or passes the end of its message.
    """
    groups = [key >> 3] if key & 7 == GROUP else []
    start = position
    while True:
        kind = key & 7
        if kind == VARINT:
            _, position = read_varint(data, position, end)
        elif kind == LENGTH:
            _, position = read_length(data, position, end)
        elif kind in (FIXED64, FIXED32):
            position += 8 if kind == FIXED64 else 4
            if position > end:
                raise WireError(start, "the message ends within a number", truncated=end == len(data))
        elif kind == END_GROUP:
            if not groups or groups.pop() != key >> 3:
                raise WireError(start, f"a group {key >> 3} ends that did not begin")
        elif kind != GROUP:
            raise WireError(start, f"there is no wire type {kind}")
        if not groups:
            return position
        start = position
        key, position = read_varint(data, position, end)  # protobuf, too, does not look at numbers in unknown groups
        if key & 7 == GROUP:
            groups.append(key >> 3)
            if len(groups) > max_depth:
                raise WireError(start, f"groups nest deeper than {max_depth}", beyond_limit=True)


def fields(data: memoryview, start: int, end: int, *, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Walk the fields of one message.

    Args:
        data: The bytes.
        start: Where the message begins.
        end: Where it ends.
        most: Stop after so many fields.

    Yields:
        Field number, wire type, and where the value begins and ends. The last value is cut where the data ends.

    Raises:
        WireError: The wire format is wrong.
    """
    position = start
    while position < end and most > 0:
        key, position = read_key(data, position, end)
        if key & 7 == LENGTH:
            length, value = read_varint(data, position, end)
            position = value + length
            if position > end and end < len(data):
                raise WireError(value, "a field passes the end of its message")
        else:
            value, position = position, skip_value(data, key, position, end, 10)
        yield key >> 3, key & 7, value, min(position, end)
        most -= 1


def first_fault(data: memoryview, descriptor: Any, *, max_depth: int) -> WireError | None:
    """Find the first place at which bytes are no message of a schema.

    Args:
        data: The bytes.
        descriptor: The schema of the message.
        max_depth: Bound for nesting.

    Returns:
        What is wrong there, or None.
    """
    try:
        _Check(data, max_depth).message(0, len(data), descriptor, 1)
    except WireError as error:
        return error
    return None


def sample_fault(data: memoryview, descriptor: Any, *, strict: bool) -> WireError | None:
    """Look whether the beginning of some bytes can be a message of a schema.

    Only the first fields are looked at, and only the upper levels. A field that passes the end of the data is looked at
    up to there, so that a file that was cut is still known for what it was.

    Args:
        data: The bytes.
        descriptor: The schema of the message.
        strict: Refuse field numbers that the schema does not know.

    Returns:
        What is wrong, or None. A `truncated` fault says that nothing was wrong up to the end of the data.
    """
    try:
        _Check(data, 5, most=64, sample=True, strict=strict).message(0, len(data), descriptor, 1)
    except WireError as error:
        return error
    return None


@dataclass
class _Check:
    """One pass over a message.

    Attributes:
        data: The bytes.
        max_depth: Bound for nesting; a sample goes no deeper, the full check refuses.
        most: Fields of one message to look at.
        sample: Whether this is `sample_fault`.
        strict: Whether unknown fields are refused.
    """

    data: memoryview
    max_depth: int
    most: int = 1 << 62
    sample: bool = False
    strict: bool = False

    def message(self, start: int, end: int, descriptor: Any, depth: int) -> None:
        position = start
        left = self.most
        while position < end and left > 0:
            left -= 1
            begin = position
            key, position = read_key(self.data, position, end)
            field = descriptor.fields_by_number.get(key >> 3)
            kind = key & 7
            known = field is not None and self._fits(field, kind)
            if not known and (self.strict or (self.sample and field is not None)):
                raise WireError(begin, f"{descriptor.name} has no field {key >> 3} of wire type {kind}")
            if not known or kind != LENGTH:
                position = skip_value(self.data, key, position, end, 100)
                continue
            value, position = self._range(position, end)
            cut = position > end
            self._value(begin, value, min(position, end), field, depth)
            if cut:
                raise WireError(begin, f"field {field.name} passes the end of the file", truncated=True)

    def _range(self, position: int, end: int) -> tuple[int, int]:
        if not (self.sample and end == len(self.data)):
            return read_length(self.data, position, end)
        length, start = read_varint(self.data, position, end)
        return start, start + length

    def _value(self, begin: int, start: int, end: int, field: Any, depth: int) -> None:
        if field.type == Field.TYPE_MESSAGE:
            if depth < self.max_depth:
                self.message(start, end, field.message_type, depth + 1)
            elif not self.sample:
                raise WireError(begin, f"messages nest deeper than {self.max_depth}", beyond_limit=True)
        elif field.type == Field.TYPE_STRING:
            text = self.data[start : min(end, start + 4096) if self.sample else end]
            try:
                # a sample may end within a character
                codecs.utf_8_decode(text, "strict", not self.sample)
            except UnicodeDecodeError as error:
                raise WireError(begin, f"field {field.name} is no UTF-8 text") from error
        elif field.type != Field.TYPE_BYTES:
            self._list(begin, start, end, field)

    def _list(self, begin: int, start: int, end: int, field: Any) -> None:
        """Check a packed list of numbers; a sample trusts it."""
        wire = _WIRE_TYPES.get(field.type, VARINT)
        if self.sample:
            return
        if wire == VARINT:
            while start < end:
                _, start = read_varint(self.data, start, end)
        elif (end - start) % (8 if wire == FIXED64 else 4):
            raise WireError(begin, f"the list in field {field.name} ends within a number")

    @staticmethod
    def _fits(field: Any, kind: int) -> bool:
        expected = _WIRE_TYPES.get(field.type, VARINT)
        if kind == expected:
            return True
        listed = kind == LENGTH and field.type not in (Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_MESSAGE)
        return listed and _is_repeated(field)


def _is_repeated(field: Any) -> bool:
    # protobuf 7 deprecates `label`, protobuf before 6.30 has no `is_repeated`
    repeated = getattr(field, "is_repeated", None)
    return bool(field.label == Field.LABEL_REPEATED if repeated is None else repeated)
