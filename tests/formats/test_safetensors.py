"""Reading and writing safetensors; the `safetensors` package is the oracle."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, LimitError, StructureError, TfthawError, TruncatedError, UnsupportedError
from tfthaw.formats.safetensors import read_safetensors, write_safetensors
from tfthaw.limits import Limits
from tfthaw.tensors import ArrayTensor, FileTensor, LazyTensor

HOLDS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32",
         "float64", "complex64"]  # fmt: skip
ML_HOLDS = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"]
ONE = {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}


def written(arrays, metadata=None):
    buffer = io.BytesIO()
    places = write_safetensors(buffer, {name: ArrayTensor(array) for name, array in arrays.items()}, metadata)
    return buffer.getvalue(), places


def file_of(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        return str(path)

    return write


arrays = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(lambda name: name != "__metadata__"),
    st.sampled_from(HOLDS).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=6,
)


class TestWriter:
    def test_golden(self):
        content, places = written({"a": np.array([1, 2], "<u2"), "b": np.float32(1.0)}, {"k": "v"})
        header = (
            b'{"__metadata__":{"k":"v"},"b":{"dtype":"F32","shape":[],"data_offsets":[0,4]},'
            b'"a":{"dtype":"U16","shape":[2],"data_offsets":[4,8]}}     '
        )
        assert content == struct.pack("<Q", len(header)) + header + b"\0\0\x80\x3f\1\0\2\0"
        assert len(header) % 8 == 0
        assert places == {"b": (8 + len(header), 4), "a": (12 + len(header), 4)}

    @settings(max_examples=60, deadline=None)
    @given(arrays)
    def test_bytes_are_those_of_the_package(self, values):
        content, places = written(values)
        assert content == safetensors.numpy.save(values)
        for name, (offset, length) in places.items():
            assert content[offset : offset + length] == values[name].tobytes()

    @pytest.mark.parametrize("name", ML_HOLDS)
    def test_types_of_ml_dtypes(self, name, put):
        values = {"x": np.arange(4).astype(getattr(ml_dtypes, name))}
        content, _ = written(values)
        assert content == safetensors.numpy.save(values)
        tensor = read_safetensors(put(content)).tensors["x"]
        assert tensor.dtype is DType[name]
        assert tensor.numpy().tobytes() == values["x"].tobytes()

    def test_order_of_all_types(self):
        values = {f"{name[::-1]}": np.zeros(1, name) for name in HOLDS}
        values |= {f"{name[::-1]}": np.zeros(1, getattr(ml_dtypes, name)) for name in ML_HOLDS}
        assert written(values)[0] == safetensors.numpy.save(values)

    def test_quantized_types_become_their_integers(self, put):
        buffer = io.BytesIO()
        write_safetensors(buffer, {"q": ArrayTensor(np.array([-1, 2], "i1"), DType.qint8)})
        tensor = read_safetensors(put(buffer.getvalue())).tensors["q"]
        assert (tensor.dtype, tensor.numpy().tolist()) == (DType.int8, [-1, 2])

    def test_names_all_that_it_cannot_hold(self):
        buffer = io.BytesIO()
        tensors = {
            "ok": ArrayTensor(np.zeros(2)),
            "text": ArrayTensor([b"a"]),
            "c": ArrayTensor(np.zeros(2, "c16")),
            "four": ArrayTensor(np.zeros(2, ml_dtypes.int4)),
            "__metadata__": ArrayTensor(np.zeros(1)),
            "\ud800": ArrayTensor(np.zeros(1)),
        }
        with pytest.raises(UnsupportedError) as caught:
            write_safetensors(buffer, tensors)
        assert len(caught.value.problems) == 5
        for part in ("text: string[1]", "c: complex128[2]", "four: int4[2]", "__metadata__", "not Unicode"):
            assert part in str(caught.value)
        assert buffer.getvalue() == b""

    def test_progress_counts_every_byte(self):
        done = []
        write_safetensors(io.BytesIO(), {"a": ArrayTensor(np.zeros(5)), "b": ArrayTensor(np.zeros(3, "i1"))},
                          progress=done.append)  # fmt: skip
        assert sum(done) == 43

    def test_refuses_a_tensor_of_another_size(self):
        with pytest.raises(StructureError, match="16 bytes came"):
            write_safetensors(io.BytesIO(), {"a": LazyTensor(DType.float64, (3,), lambda: np.zeros(2))})

    def test_metadata_is_sorted(self):
        assert written({}, {"b": "2", "a": "1"})[0] == written({}, {"a": "1", "b": "2"})[0]


class TestReader:
    @settings(max_examples=40, deadline=None)
    @given(arrays)
    def test_reads_what_the_package_writes(self, values):
        path = Path(self.folder, "x.safetensors")
        path.write_bytes(safetensors.numpy.save(values, {"k": "é"}))
        found = read_safetensors(str(path))
        assert set(found.tensors) == set(values)
        assert found.metadata == {"k": "é"}
        for name, value in values.items():
            tensor = found.tensors[name]
            assert isinstance(tensor, FileTensor)
            assert (tensor.shape, tensor.dtype) == (value.shape, DType.from_numpy(value.dtype))
            assert tensor.numpy().tobytes() == b"".join(bytes(chunk) for chunk in tensor.chunks(3)) == value.tobytes()

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory):
        type(self).folder = tmp_path_factory.mktemp("safetensors")

    @pytest.mark.parametrize(("header", "data", "message"), [
        (b"[]", b"", "expected '{'"),
        (b" {}", b"", "expected '{'"),
        (b"{", b"", "not valid JSON"),
        (b"{}\0", b"", "not valid JSON"),
        (b'{"a":NaN}', b"", "not valid JSON"),
        (b'{"\xff":1}', b"", "not valid JSON"),
        (b'{"\\ud800":{}}', b"", "not valid JSON"),
        (b'{"a":' + b"[" * 50_000, b"", "not valid JSON"),
        (b'{"a":1' + b"0" * 5000 + b"}", b"", "not valid JSON"),
        (b'{"a":{},"a":{}}', b"", "'a' is there twice"),
        (b'{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"1", "'dtype' is there twice"),
        ({"a": 1}, b"", "expected an object"),
        ({"a": {"dtype": "U8", "shape": [1]}}, b"", "expected an object"),
        ({"a": {**ONE, "dtype": "C128"}}, b"12", "unknown dtype 'C128'"),
        ({"a": {**ONE, "dtype": ["U8"]}}, b"12", "unknown dtype"),
        ({"a": {**ONE, "shape": [-2]}}, b"12", "non-negative"),
        ({"a": {**ONE, "shape": [2.0]}}, b"12", "non-negative"),
        ({"a": {**ONE, "shape": [True, 2]}}, b"12", "non-negative"),
        ({"a": {**ONE, "data_offsets": [0, 1, 2]}}, b"12", "two of them"),
        ({"a": {**ONE, "data_offsets": [2, 0]}}, b"12", "needs 2 bytes"),
        ({"a": {**ONE, "shape": [3]}}, b"12", "needs 3 bytes"),
        ({"a": {**ONE, "dtype": "F4", "shape": [3]}}, b"12", "needs 1.5 bytes"),
        ({"a": {**ONE, "shape": [1 << 62, 1 << 62]}}, b"12", "more elements than"),
        ({"a": {**ONE, "shape": [0, 1 << 63], "data_offsets": [0, 0]}}, b"", "more elements than"),
        ({"a": ONE}, b"123", "1 bytes follow the last tensor"),
        ({"a": {**ONE, "data_offsets": [1, 3]}}, b"123", "leaves a hole"),
        ({"a": ONE, "b": {**ONE, "data_offsets": [1, 3]}}, b"123", "overlaps"),
        ({"__metadata__": {"a": 1}}, b"", "text to text"),
        ({"__metadata__": []}, b"", "text to text"),
    ])  # fmt: skip
    def test_refuses(self, put, header, data, message):
        with pytest.raises(FormatError, match=message.replace("[", r"\[")) as caught:
            read_safetensors(put(file_of(header, data)))
        assert caught.value.path

    @pytest.mark.parametrize("content", [b"", b"1234567", struct.pack("<Q", 10) + b"{}", file_of({"a": ONE}, b"1")])
    def test_refuses_a_cut_file(self, put, content):
        with pytest.raises(TruncatedError):
            read_safetensors(put(content))

    def test_refuses_an_absurd_header(self, put):
        with pytest.raises(LimitError, match="claims 18446744073709551615 bytes"):
            read_safetensors(put(b"\xff" * 8 + b"{}"))

    def test_limits(self, put):
        path = put(file_of({"a": {**ONE, "shape": [2, 1]}}, b"12"))
        with pytest.raises(LimitError, match="2 dimensions, at most 1"):
            read_safetensors(path, Limits(max_rank=1))
        with pytest.raises(LimitError, match="2 bytes, at most 1"):
            read_safetensors(path, Limits(max_tensor_bytes=1))

    def test_accepts_what_the_package_accepts(self, put):
        for header in ({"a": {**ONE, "more": 1}}, {"a": ONE, "__metadata__": None}):
            content = file_of(header, b"\1\2")
            assert safetensors.deserialize(content)
            assert read_safetensors(put(content)).tensors["a"].numpy().tolist() == [1, 2]

    def test_a_foreign_type_fails_only_when_it_is_read(self, put):
        header = {"f": {"dtype": "F4", "shape": [4], "data_offsets": [0, 2]}, "u": {**ONE, "data_offsets": [2, 4]}}
        tensors = read_safetensors(put(file_of(header, b"1234"))).tensors
        assert tensors["u"].numpy().tobytes() == b"34"
        with pytest.raises(UnsupportedError, match="F4"):
            tensors["f"].numpy()

    def test_every_cut_is_seen(self, put):
        content, _ = written({"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(3, "i2")}, {"k": "v"})
        for length in range(len(content)):
            with pytest.raises(FormatError):
                read_safetensors(put(content[:length]))

    def test_every_flipped_bit_of_the_header(self, put):
        """Whatever we accept, the package accepts too, and both find the same."""
        content, _ = written({"a": np.arange(4, dtype="u1").reshape(2, 2), "b": np.zeros(3, "i2")}, {"k": "v"})
        accepted = 0
        for position in range(8 * (len(content) - 10)):
            damaged = bytearray(content)
            damaged[position // 8] ^= 1 << position % 8
            try:
                found = read_safetensors(put(bytes(damaged)))
            except TfthawError:
                continue
            accepted += 1
            expected = dict(safetensors.deserialize(bytes(damaged)))
            assert {name: list(tensor.shape) for name, tensor in found.tensors.items()} == {
                name: info["shape"] for name, info in expected.items()
            }
        assert accepted > 10  # names and metadata can say anything
