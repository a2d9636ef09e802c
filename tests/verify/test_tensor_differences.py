"""How far tensors are apart."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfthaw import proto
from tfthaw.dtypes import DType
from tfthaw.errors import ChecksumError, StructureError
from tfthaw.formats.tensor_bundle import BundleReader
from tfthaw.serde.tensors import ProtoTensor
from tfthaw.tensors import ArrayTensor, LazyTensor, Tensor
from tfthaw.verify.tensor_differences import Named, compare, compare_pair
from verify.artifacts import checkpoint


def named(values, dtype=None, name="w"):
    tensor = values if isinstance(values, Tensor) else ArrayTensor(np.asarray(values), dtype)
    return Named(name, tensor, "file")


def change(one, other, dtype=None):
    return compare_pair(named(one, dtype), named(other, dtype))


def test_the_same_is_no_change():
    assert change(np.arange(9.0), np.arange(9.0)) is None
    assert change(np.array([b"x", b""], object), np.array([b"x", b""], object)) is None


def test_floats_are_measured():
    found = change(np.array([1.0, 2.0, 0.0, -4.0], np.float32), np.array([1.0, 2.5, 0.0, -3.0], np.float32))
    assert (found.different, found.elements, found.not_finite) == (2, 4, 0)
    assert found.max_abs == 1.0
    assert found.max_rel == 0.25
    assert found.change == pytest.approx(np.sqrt(0.25 + 1.0) / np.sqrt(1 + 4 + 16))
    assert found.is_of_one_kind


def test_nan_and_infinity_count_apart():
    found = change(np.array([np.nan, np.inf, 1.0, np.nan]), np.array([np.nan, 5.0, 1.5, 2.0]))
    assert (found.different, found.not_finite, found.max_abs) == (3, 2, 0.5)
    found = change(np.array([np.nan, 1.0]), np.array([1.0, 1.0]))
    assert (found.different, found.not_finite, found.max_abs, found.max_rel) == (1, 1, None, None)


def test_minus_zero_differs_by_nothing():
    found = change(np.zeros(2, np.float32), np.array([0.0, -0.0], np.float32))
    assert (found.different, found.max_abs, found.max_rel, found.change) == (1, 0.0, 0.0, None)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, ml_dtypes.float8_e4m3fn, np.float16])
def test_short_floats_are_measured_as_what_they_are(dtype):
    found = change(np.array([1, 2], dtype), np.array([1, 3], dtype))
    assert (found.different, found.max_abs, found.dtypes[0].name) == (1, 1.0, np.dtype(dtype).name)


def test_integers_are_exact_beyond_float64():
    big = 2**62
    found = change(np.array([big, -(2**63)]), np.array([big + 1, 2**63 - 1]))
    assert found.max_abs == 2**64 - 1
    assert change(np.array([big]), np.array([big + 1])).max_abs == 1
    unsigned = change(np.array([2**64 - 1], np.uint64), np.array([0], np.uint64))
    assert unsigned.max_abs == 2**64 - 1
    assert change(np.array([True, False]), np.array([True, True])).max_abs == 1
    assert change(np.array([-7], ml_dtypes.int4), np.array([7], ml_dtypes.int4)).max_abs == 14


def test_complex_numbers_differ_by_their_distance():
    found = change(np.array([3 + 4j, 1], np.complex128), np.array([0, 1], np.complex128))
    assert (found.different, found.max_abs, found.max_rel) == (1, 5.0, 1.0)
    assert found.change == pytest.approx(5 / np.sqrt(26))


def test_another_type_is_measured_by_value():
    found = change(np.array([1.0, 1 / 3]), np.array([1.0, 1 / 3], np.float32))
    assert (found.different, found.is_of_one_kind) == (1, False)
    assert 0 < found.max_abs < 1e-7
    assert change(np.array([1, 2], np.int32), np.array([1, 2], np.int64)).different == 0


def test_another_shape_is_not_measured():
    found = change(np.zeros((2, 3)), np.zeros((3, 2)))
    assert (found.different, found.max_abs, found.shapes) == (None, None, ((2, 3), (3, 2)))
    assert found.as_dict()["b"] == {"dtype": "float64", "shape": [3, 2]}


def test_strings_are_counted():
    found = change(np.array([b"a", b"b", b"c"], object), np.array([b"a", b"x", b"y"], object))
    assert (found.different, found.max_abs) == (2, None)
    assert change(np.array([b"1"], object), np.array([1.0])).different is None


def test_a_constant_that_is_no_array_compares_by_its_message():
    message = proto.TensorProto(dtype=int(DType.variant))
    other = proto.TensorProto(dtype=int(DType.variant), version_number=1)
    one = named(ProtoTensor(message, {}))
    assert compare_pair(one, named(ProtoTensor(message, {}))) is None
    assert compare_pair(one, named(ProtoTensor(other, {}))) is not None


def test_long_tensors_are_measured_in_steps():
    values = np.zeros(300_000, np.float32)
    other = values.copy()
    other[[0, 40_000, 299_999]] = [1, 2, 3]
    found = change(values, other)
    assert (found.different, found.max_abs) == (3, 3.0)


def test_chunks_may_cut_elements():
    class Odd(LazyTensor):
        def chunks(self, chunk_bytes=5):
            return super().chunks(5)

    values = np.arange(10, dtype=np.float64)
    assert change(Odd(DType.float64, (10,), lambda: values), values + 1).max_abs == 1.0


floats = hnp.arrays(np.float32, 17, elements=st.floats(width=32))


@settings(max_examples=80, deadline=None)
@given(floats, floats)
def test_measures_agree_with_numpy(one, other):
    found = change(one, other)
    unequal = one.view(np.uint32) != other.view(np.uint32)
    if not unequal.any():
        assert found is None
        return
    finite = np.isfinite(one) & np.isfinite(other)
    assert found.different == unequal.sum()
    assert found.not_finite == (unequal & ~finite).sum()
    measured = unequal & finite
    apart = np.abs(one[measured].astype(np.float64) - other[measured]) if measured.any() else None
    assert found.max_abs == (None if apart is None else apart.max())
    assert found.max_rel is None or 0 <= found.max_rel <= 2


def test_names_are_sorted_out():
    a = {name: named(value, name=name) for name, value in {"same": 1.0, "off": 2.0, "old": 3.0}.items()}
    b = {name: named(value, name=name) for name, value in {"same": 1.0, "off": 2.5, "new": 3.0}.items()}
    done = []
    found = compare(a, b, done.append)
    assert (found.equal, found.equal_bytes, [item.name for item in found.changed]) == (("same",), 8, ["off"])
    assert (list(found.only_in_a), list(found.only_in_b), sum(done)) == (["old"], ["new"], 16)
    assert not found.same
    assert compare(a, a).same


def test_a_damaged_tensor_is_named(tmp_path):
    prefix = checkpoint(tmp_path, "ck", {"w": np.arange(6.0)})
    data = tmp_path / "ck.data-00000-of-00001"
    data.write_bytes(b"\1" + data.read_bytes()[1:])
    with (
        BundleReader(prefix) as reader,
        pytest.raises(ChecksumError, match="tensor 'w' at offset 0: checksum mismatch"),
    ):
        change(reader.tensor("w"), np.arange(6.0))


def test_an_error_without_a_place_gets_one():
    message = proto.TensorProto(dtype=int(DType.float32), float_val=[1, 2, 3])
    with pytest.raises(StructureError, match="file: tensor 'w': 3 values are stored for 1 elements"):
        change(ProtoTensor(message, {}), np.float32(1))
