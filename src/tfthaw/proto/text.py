"""The text form of protobuf messages (`.pbtxt`, the `checkpoint` file), in the private pool.

This module turns text into messages and back. It opens no file and does not know what a message means.

Source: the Protocol Buffers text format specification (protobuf.dev, "Text Format Language"); protobuf's own
`text_format` does the work.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pool, message, text_format

from tfthaw import proto
from tfthaw.errors import FormatError, UnsupportedError

_FIRST_FIELD = re.compile(r"(?:\s|#[^\n]*(?:\n|$))*([A-Za-z_][A-Za-z0-9_]*)\s*[:{<]")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f\x7f]")  # protobuf's text has none: it escapes them
_UNKNOWN_FIELD = re.compile(r'Message type "([^"]*)" has no field named "([^"]*)"')
_HEAD_BYTES = 4096


def first_field(head: bytes) -> str | None:
    """Return the name of the first field, if the bytes begin like a message in text form.

    A binary message never does: within its first fields there is a control character, the key of a field.

    Args:
        head: The first bytes of a file; more than 4096 are not looked at.
    """
    head = head[:_HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")
    if _CONTROL.search(head):
        return None
    found = _FIRST_FIELD.match(head.decode("utf-8", "replace"))
    return found.group(1) if found else None


def parse_text(cls: Any, text: bytes | str, path: str | None = None, *, notes: list[str] | None = None) -> Any:
    """Parse a message in text form.

    Args:
        cls: A message class of `tfthaw.proto`.
        text: The text; bytes are UTF-8, with or without a byte order mark.
        path: The file it comes from, for the error.
        notes: Where given, fields that the schema does not know are skipped, which is said here; else they are refused.

    Returns:
        The message.

    Raises:
        FormatError: The text is no such message, or nests deeper than the binary form can.
    """
    if isinstance(text, bytes):
        text = _decode(text, path)
    name = cls.DESCRIPTOR.name
    try:
        try:
            parsed = text_format.Parse(text, cls(), descriptor_pool=proto.pool())
        except text_format.ParseError as error:
            unknown = _UNKNOWN_FIELD.search(str(error))
            if notes is None or unknown is None:
                raise
            notes.append(f"{_place(error)}: {unknown.group(1)} has no field {unknown.group(2)!r}; fields that this "
                         f"version does not know were left out")
            parsed = text_format.Parse(text, cls(), descriptor_pool=proto.pool(), allow_unknown_field=True)
    except text_format.ParseError as error:
        detail = re.sub(r"^\d+:\d+ ?: ", "", str(error))
        raise FormatError(f"the text is no {name}: {_short(detail)}", path=path, where=_place(error)) from error
    except RecursionError as error:
        raise FormatError(f"the text is no {name}: messages nest too deep", path=path) from error
    except (ValueError, TypeError, OverflowError, KeyError) as error:
        raise FormatError(f"the text is no {name}: {_short(str(error))}", path=path) from error
    try:
        cls.FromString(parsed.SerializeToString())
    except (message.DecodeError, message.EncodeError, ValueError) as error:
        # the text reader has no bound of its own, and what it read could never be written
        raise FormatError(f"the text is no {name} that has a binary form: {error}", path=path) from error
    return parsed


def to_text(value: proto.Message) -> str:
    """Return a message in text form: ASCII, everything else escaped, as TensorFlow writes it.

    Raises:
        UnsupportedError: The message has fields that the schema does not know; text could not keep them.
    """
    known = type(value)()
    known.CopyFrom(value)
    known.DiscardUnknownFields()
    if known.ByteSize() != value.ByteSize():
        raise UnsupportedError(
            f"the {value.DESCRIPTOR.name} has fields that this version does not know, and text has no form for them",
            hint="write the binary form",
        )
    # in an empty pool no Any is unfolded: its bytes stay as they are
    empty = descriptor_pool.DescriptorPool()
    text: str = text_format.MessageToString(value, descriptor_pool=empty, as_utf8=False)
    return text


def _decode(text: bytes, path: str | None) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        column = error.start - (before.rfind(b"\n") + 1) + 1
        raise FormatError(
            f"the text is not UTF-8 (byte 0x{text[error.start]:02x})", path=path, where=f"{line}:{column}"
        ) from error


def _place(error: Any) -> str | None:
    line, column = error.GetLine(), error.GetColumn()
    return None if line is None else f"{line}:{column or 1}"


def _short(detail: str) -> str:
    return detail if len(detail) <= 200 else f"{detail[:200]}..."
