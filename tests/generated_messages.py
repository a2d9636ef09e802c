"""Arbitrary protobuf messages for property tests, made from the schema itself.

Every field of every message may be set, strings and numbers take edge values, enums also values that the schema does
not know, and any message at any level may carry fields of a number that the schema does not have.
"""

from hypothesis import strategies as st

MAX_DEPTH = 6

# field 15000 of each wire type: varint, 64 bit, bytes, 32 bit
_UNKNOWN_FIELDS = (
    b"\xc0\xa9\x07\x2a",
    b"\xc1\xa9\x07" + bytes(range(8)),
    b"\xc2\xa9\x07\x03\x08\x01\xff",
    b"\xc5\xa9\x07\x01\x02\x03\x04",
)

_TEXT = st.sampled_from(["", "a", "b/c:1", "^d", "ä"])
_NUMBERS = {
    "int32": st.sampled_from([0, 1, -1, 2**31 - 1, -(2**31)]),
    "int64": st.sampled_from([0, 1, -1, -2, 2**63 - 1, -(2**63)]),
    "uint32": st.sampled_from([0, 1, 2**32 - 1]),
    "uint64": st.sampled_from([0, 1, 2**64 - 1]),
    "float": st.sampled_from([0.0, -0.0, 1.5, float("inf"), 2.0**-149]),
    "double": st.sampled_from([0.0, -0.0, 0.1, float("-inf"), 5e-324]),
    "bool": st.booleans(),
    "string": _TEXT,
    "bytes": st.sampled_from([b"", b"\x00", b"\xff\xfe text"]),
}
_CPP_TYPES = {1: "int32", 2: "int64", 3: "uint32", 4: "uint64", 5: "double", 6: "float", 7: "bool"}


@st.composite
def generated(draw, cls, *, unknown=False, always=(), never=()):
    """Draw a message of a class.

    Args:
        cls: A message class of `tfthaw.proto`.
        unknown: Whether messages at any level may have fields that the schema does not know.
        always: Full names of fields that are set wherever their message appears.
        never: Full names of fields that are left empty.
    """
    message = cls()
    _fill(draw, message, MAX_DEPTH, unknown, frozenset(always), frozenset(never))
    return message


def _fill(draw, message, depth, unknown, always, never):
    """Fill an empty message; deeper levels get fewer fields, so that it ends."""
    fields = [field for field in message.DESCRIPTOR.fields if field.full_name not in never]
    chosen = [field for field in fields if field.full_name in always]
    if depth and fields:
        chosen += draw(
            st.lists(st.sampled_from(fields), max_size=4 if depth > 3 else 2, unique_by=lambda field: field.name)
        )
    for field in dict.fromkeys(chosen):
        _set(draw, message, field, depth - 1, unknown, always, never)
    if unknown and draw(st.integers(0, 3)) == 0:
        message.MergeFromString(draw(st.sampled_from(_UNKNOWN_FIELDS)))


def _set(draw, message, field, depth, unknown, always, never):
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        _set_map(draw, getattr(message, field.name), field.message_type, depth, unknown, always, never)
    elif field.message_type is not None and field.is_repeated:
        for _ in range(draw(st.integers(1, 3))):
            _fill(draw, getattr(message, field.name).add(), depth, unknown, always, never)
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
        _fill(draw, getattr(message, field.name), depth, unknown, always, never)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(_scalars(field), min_size=1, max_size=3)))
    else:
        setattr(message, field.name, draw(_scalars(field)))


def _set_map(draw, target, entry, depth, unknown, always, never):
    value = entry.fields_by_name["value"]
    for key in draw(st.lists(_scalars(entry.fields_by_name["key"]), min_size=1, max_size=3, unique=True)):
        if value.message_type is None:
            target[key] = draw(_scalars(value))
        else:
            _fill(draw, target[key], depth, unknown, always, never)


def _scalars(field):
    if field.enum_type is not None:
        return st.sampled_from([*field.enum_type.values_by_number, 2_000_000])
    if field.type == field.TYPE_BYTES:
        return _NUMBERS["bytes"]
    return _NUMBERS[_CPP_TYPES.get(field.cpp_type, "string")]
