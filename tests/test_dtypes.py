"""Element types and their names."""

import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from tfthaw import dtypes
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError

NEWEST = {"int2", "uint2", "float4_e2m1fn"}  # which the oldest ml_dtypes that tfthaw runs with has not
NUMERIC = [
    dtype for dtype in DType if dtype.is_numeric and (dtype.name not in NEWEST or hasattr(ml_dtypes, dtype.name))
]


@pytest.mark.parametrize("dtype", NUMERIC)
def test_itemsize_is_that_of_the_numpy_type(dtype):
    assert dtype.itemsize == dtype.numpy.itemsize > 0


@pytest.mark.parametrize("dtype", [DType.string, DType.resource, DType.variant, DType.invalid])
def test_types_without_a_size(dtype):
    assert dtype.itemsize == 0
    assert dtype.numpy == np.dtype(object)
    assert not dtype.is_numeric


@pytest.mark.parametrize("dtype", [dtype for dtype in NUMERIC if not dtype.name.startswith("q")])
def test_numpy_names_lead_back(dtype):
    assert DType.from_numpy(dtype.numpy) is dtype


def test_every_kind_of_text_is_string():
    for array in (np.array(["a"]), np.array([b"a"]), np.array([b"a"], object)):
        assert DType.from_numpy(array.dtype) is DType.string


def test_numpy_type_without_a_counterpart():
    with pytest.raises(KeyError):
        DType.from_numpy(np.dtype("datetime64[s]"))


@pytest.mark.parametrize("dtype", [dtype for dtype in DType if dtype.safetensors])
def test_safetensors_names_lead_back(dtype):
    assert DType.from_safetensors(dtype.safetensors) is dtype


def test_safetensors_without_a_counterpart():
    assert DType.complex128.safetensors is None
    with pytest.raises(KeyError):
        DType.from_safetensors("F8_E8M0")


def test_references():
    reference = DType(101)
    assert (reference.name, reference.is_ref, reference.base) == ("float32_ref", True, DType.float32)
    assert not DType.float32.is_ref
    assert DType.float32.base is DType.float32
    assert DType(101) is reference


def test_unknown_numbers_survive():
    unknown = DType(77)
    assert (unknown.name, int(unknown), unknown.is_numeric, unknown.itemsize) == ("dtype_77", 77, False, 0)
    assert DType(77) is unknown
    assert unknown not in list(DType)


def test_not_a_number():
    with pytest.raises(ValueError, match="is not a valid DType"):
        DType("float32")


def test_floats():
    assert DType.bfloat16.is_float
    assert DType.float8_e5m2.is_float
    assert not DType.complex64.is_float
    assert not DType.qint8.is_float


def test_numpy_types_are_little_endian():
    assert {dtype.numpy.byteorder for dtype in NUMERIC} <= {"<", "=", "|", "V"}
    assert DType.float32.numpy == np.dtype("<f4")


def test_an_old_ml_dtypes_is_named(monkeypatch):
    monkeypatch.setattr(dtypes, "_numpy_types", {})
    monkeypatch.delattr(ml_dtypes, "float8_e5m2fnuz")
    assert DType.float8_e5m2fnuz.itemsize == 1
    with monkeypatch.context() as patch:
        patch.setattr(dtypes.np, "dtype", _only_builtin(np.dtype))
        with pytest.raises(UnsupportedError, match="has no float8_e5m2fnuz; pip install --upgrade ml_dtypes"):
            _ = DType.float8_e5m2fnuz.numpy


def _only_builtin(real):
    """numpy's dtype as it is before ml_dtypes registers its names."""

    def dtype(name):
        if name == "float8_e5m2fnuz":
            raise TypeError(name)
        return real(name)

    return dtype


def test_ml_dtypes_is_imported_late():
    code = (
        "import sys; from tfthaw.dtypes import DType; DType.bfloat16.itemsize; DType.float32.numpy; "
        "assert 'ml_dtypes' not in sys.modules; DType.bfloat16.numpy; assert 'ml_dtypes' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.tf
def test_numbers_names_and_sizes_are_tensorflow_s(tf):
    for dtype in DType:
        if dtype is DType.invalid:
            continue
        theirs = tf.dtypes.as_dtype(int(dtype))
        assert theirs.name == dtype.name
        if dtype in NUMERIC:
            assert theirs.size == dtype.itemsize
            # TensorFlow's quantized types are records around the integers that tfthaw uses
            array_type = np.dtype(theirs.as_numpy_dtype)
            assert (array_type[0] if array_type.fields else array_type) == dtype.numpy
