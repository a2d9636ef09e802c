"""What one file is, by its bytes.

The name of a file decides nothing here. Which files make up an artifact, and what a path means, is in `detect`.

Source: the magic numbers of each format's specification:

    | format       | where                | bytes                                                |
    | HDF5         | 0, 512, 1024, 2048.. | 89 48 44 46 0d 0a 1a 0a                              |
    | zip          | 0                    | PK 03 04, or PK 05 06 where it is empty              |
    | table        | the last 8           | 57 fb 80 8b 24 75 47 db                              |
    | safetensors  | 0                    | length of the header (uint64, little-endian), then { |
    | text         | 0                    | a field's name, then : or {                          |
    | binary       | 0                    | fields that fit one of three schemas                 |
"""

from __future__ import annotations

import enum

from tfthaw import proto
from tfthaw._files import SourceFile
from tfthaw.errors import FormatError, UnknownFormatError, listing
from tfthaw.formats.message_file import kind_of
from tfthaw.formats.table import FOOTER_BYTES, MAGIC, Table
from tfthaw.limits import DEFAULT_LIMITS, Limits
from tfthaw.proto.text import first_field

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_OFFSETS = (0, *(512 << power for power in range(12)))  # a user block of a power of two may come first
_HEAD_BYTES = 4096
_LOST_BYTES = b"\xef\xbf\xbd"  # U+FFFD, which a text conversion puts in place of bytes that are no text


class Content(enum.Enum):
    """What a file holds; where an artifact is one file, the value is the name of its format."""

    graph_def = "graph-def"
    meta_graph = "meta-graph"
    saved_model = "saved-model"
    keras_h5 = "keras-h5"
    keras_zip = "keras-zip"
    npz = "npz"
    safetensors = "safetensors"
    checkpoint_v1 = "checkpoint-v1"
    checkpoint_index = "checkpoint index"
    checkpoint_state = "checkpoint state"


_KINDS_ELSEWHERE: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of Git LFS, not the file", "run `git lfs pull` where it came from"),
    (0, b"<!DOCTYPE", "an HTML page", "the download gave a page instead of the file; download it again"),
    (0, b"<html", "an HTML page", "the download gave a page instead of the file; download it again"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it and give what is inside"),
    (0, b"BZh", "a bzip2 archive", "unpack it and give what is inside"),
    (0, b"\xfd7zXZ", "an xz archive", "unpack it and give what is inside"),
    (257, b"ustar", "a tar archive", "unpack it and give what is inside"),
    (4, b"TFL3", "a TensorFlow Lite model", "TensorFlow Lite models cannot be read back; give what it was made from"),
    (0, b"\x93NUMPY", "a single numpy array", "put arrays into one .npz, where each has a name"),
    (0, b"\x80", "a Python pickle", "pickles run code when they are read and are not opened"),
    (0, b"\xff\xfe", "text in UTF-16", "write it again as UTF-8"),
    (0, b"\xfe\xff", "text in UTF-16", "write it again as UTF-8"),
)
"""Offset, bytes, what begins like that, and what to do."""


def sniff(source: SourceFile, limits: Limits = DEFAULT_LIMITS) -> Content:
    """Tell what a file is.

    Args:
        source: The file.
        limits: Bounds for what must be read to tell.

    Raises:
        FormatError: It is empty, or what it is is damaged.
        UnknownFormatError: It is nothing that tfthaw knows; the evidence says how it begins.
    """
    if source.size == 0:
        raise FormatError("the file is empty", path=source.path)
    head = source.read(0, min(source.size, _HEAD_BYTES))
    if any(source.read(at, 8) == _HDF5 for at in _HDF5_OFFSETS if at + 8 <= source.size):
        return Content.keras_h5  # whether it is a whole model or weights alone is for the HDF5 reader to say
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _sniff_zip(source, limits)
    if is_table(source):
        return _sniff_table(source, limits)
    if _is_safetensors(head, source.size):
        return Content.safetensors
    if first_field(head) in proto.CheckpointState.DESCRIPTOR.fields_by_name:
        return Content.checkpoint_state
    kind = kind_of(source)
    if kind is None:
        raise _unknown(source, head)
    return Content(kind)


def is_table(source: SourceFile) -> bool:
    """Whether a file ends like a table: the index of a checkpoint, or a V1 checkpoint."""
    return source.size >= FOOTER_BYTES and source.read(source.size - 8, 8) == MAGIC.to_bytes(8, "little")


def _sniff_table(source: SourceFile, limits: Limits) -> Content:
    """Tell a V1 checkpoint from the index of a V2 one, by the value of their first key, which is empty in both."""
    value = Table(source, limits).get(b"")
    # V1: a SavedTensorSlices, whose only field here is 1, a message; V2: a BundleHeaderProto, whose field 1 is a number
    return Content.checkpoint_v1 if value is not None and value[:1] == b"\x0a" else Content.checkpoint_index


def _sniff_zip(source: SourceFile, limits: Limits) -> Content:
    from tfthaw.formats.zip_archive import ZipArchive

    names = list(ZipArchive(source, limits, contained=False).members)
    if not {"config.json", "model.weights.h5", "model.weights.npz"}.isdisjoint(names):
        return Content.keras_zip
    if all(name.endswith(".npy") for name in names):  # of no arrays at all, numpy makes an empty archive
        return Content.npz
    hint = None
    if any(name.endswith(("data.pkl", "constants.pkl")) for name in names):
        hint = "it looks like a PyTorch file, which is no TensorFlow artifact"
    elif any(name.endswith(("saved_model.pb", ".index", ".pb", ".h5")) for name in names):
        hint = "unpack it and give what is inside"
    raise UnknownFormatError(
        "it is a zip archive, but neither a Keras model nor arrays of numpy", path=source.path,
        evidence=f"members: {listing(names)}", where=f"members {listing(names)}", hint=hint,
    )  # fmt: skip


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return len(head) > 8 and 2 <= length <= size - 8 and head[8:9] == b"{"


def _unknown(source: SourceFile, head: bytes) -> UnknownFormatError:
    for offset, magic, kind, hint in _KINDS_ELSEWHERE:
        if head[offset:].startswith(magic):
            return UnknownFormatError(f"it is {kind}", path=source.path, evidence=kind, hint=hint)
    if not head.strip():
        return UnknownFormatError("it holds nothing but white space", path=source.path, evidence=repr(head[:16]),
                                  hint="its content was lost; take it again from where it came")
    name = first_field(head)
    if name is not None:
        evidence = f"text that begins with the field {name!r}"
        return UnknownFormatError(f"it is {evidence}, which none of the known messages has", path=source.path,
                                  evidence=evidence)
    evidence = f"the first bytes are {head[:16].hex(' ')}"
    hint = "if it is a checkpoint, give its prefix or its .index; if it is a graph, its beginning is damaged"
    if head.count(_LOST_BYTES) >= 8:  # a text of another language may have one
        hint = "bytes were lost when it was copied as text (each became ef bf bd); copy it again as binary"
    return UnknownFormatError("it is no artifact that tfthaw knows", path=source.path, where=evidence,
                              evidence=evidence, hint=hint)
