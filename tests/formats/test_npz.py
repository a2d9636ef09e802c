"""Reading and writing npz; numpy is the oracle."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tfthaw.dtypes import DType
from tfthaw.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    StructureError,
    TfthawError,
    TruncatedError,
    UnsupportedError,
)
from tfthaw.formats.npz import read_npz, write_npz
from tfthaw.limits import Limits
from tfthaw.tensors import ArrayTensor, CastTensor, FileTensor, LazyTensor

HOLDS = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32",
         "float64", "complex64", "complex128"]  # fmt: skip
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
arrays = st.dictionaries(
    names.filter(lambda name: name not in ("file", "args", "kwds", "allow_pickle") and not name.endswith(".npy")),
    st.sampled_from(HOLDS).flatmap(
        lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
    ),
    max_size=5,
)


def written(values):
    buffer = io.BytesIO()
    places = write_npz(buffer, {name: ArrayTensor(value) for name, value in values.items()})
    return buffer.getvalue(), places


def streamed(tensor, chunk_bytes):
    return b"".join(bytes(chunk) for chunk in tensor.chunks(chunk_bytes))


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "x.npz"
        path.write_bytes(content)
        return str(path)

    return write


@pytest.fixture
def pack(put):
    def write(members, **options):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", **options) as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return put(buffer.getvalue())

    return write


def npy(header, data=b"", version=b"\1\0"):
    text = header if isinstance(header, bytes) else header.encode()
    return b"\x93NUMPY" + version + len(text).to_bytes(2 if version == b"\1\0" else 4, "little") + text + data


class TestWriter:
    @settings(max_examples=60, deadline=None)
    @given(arrays)
    def test_bytes_are_those_of_numpy(self, values):
        content, places = written(values)
        expected = io.BytesIO()
        np.savez(expected, **values)
        assert content == expected.getvalue()
        for name, (offset, length) in places.items():
            assert content[offset : offset + length] == values[name].tobytes()

    @pytest.mark.parametrize(
        "name", ["a/b:0", "../q", "/abs", "", "d\\e", "x.npy", "ключ", "a b", ".npy", "[200]", "a//b"]
    )
    def test_numpy_finds_odd_names(self, name):
        content, _ = written({name: np.arange(3), "other": np.zeros(1)})
        with np.load(io.BytesIO(content)) as found:
            assert found.files == [name, "other"]
            assert found[name].tolist() == [0, 1, 2]

    @pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2", "int4", "uint2", "float4_e2m1fn"])
    def test_types_of_ml_dtypes_become_raw_bytes(self, name):
        dtype = DType[name].numpy
        values = np.arange(2).astype(dtype)
        content, _ = written({"x": values})
        found = np.load(io.BytesIO(content))["x"]
        assert found.dtype == np.dtype(f"V{dtype.itemsize}")
        assert found.tobytes() == values.tobytes()
        assert (found.view(dtype) == values).all()

    def test_the_cast_of_a_whole_checkpoint_streams(self, put):
        buffer = io.BytesIO()
        source = ArrayTensor(np.linspace(0, 1, 1000, dtype="f4"))
        write_npz(buffer, {"x": CastTensor(source, DType.bfloat16)})
        tensor = read_npz(put(buffer.getvalue())).tensors["x"]
        assert tensor.dtype is DType.bfloat16
        assert (tensor.numpy() == source.numpy().astype(ml_dtypes.bfloat16)).all()

    @pytest.mark.parametrize("values", [[b"a", b"bcd", b""], [[b"\xff\0x"], [b"y"]], [], [b""], b"one"])
    def test_strings_are_fixed_width_bytes(self, values, put):
        source = ArrayTensor(np.array(values, object))
        buffer = io.BytesIO()
        places = write_npz(buffer, {"s": source})
        found = np.load(io.BytesIO(buffer.getvalue()))["s"]
        assert found.dtype.kind == "S"
        assert found.shape == source.shape
        assert found.astype(object).tolist() == source.numpy().tolist()
        assert places["s"][1] == found.nbytes
        assert read_npz(put(buffer.getvalue())).tensors["s"].numpy().tolist() == source.numpy().tolist()

    def test_long_strings_are_padded_in_batches(self, put):
        source = ArrayTensor(np.array([b"x" * 3_000_000, b"y", b"z"], object))
        buffer = io.BytesIO()
        write_npz(buffer, {"s": source})
        assert read_npz(put(buffer.getvalue())).tensors["s"].numpy().tolist() == source.numpy().tolist()

    def test_quantized_types_become_their_integers(self):
        buffer = io.BytesIO()
        write_npz(buffer, {"q": ArrayTensor(np.array([-1, 2], "i4"), DType.qint32)})
        assert np.load(io.BytesIO(buffer.getvalue()))["q"].tolist() == [-1, 2]

    def test_names_all_that_it_cannot_hold(self):
        buffer = io.BytesIO()
        tensors = {
            "ok": ArrayTensor(np.zeros(1)),
            "ok.npy": ArrayTensor(np.zeros(1)),
            "zero": ArrayTensor(np.array([b"a\0"], object)),
            "handle": LazyTensor(DType.resource, (), lambda: np.zeros(0)),
            "\ud800": ArrayTensor(np.zeros(1)),
            "nul\0": ArrayTensor(np.zeros(1)),
            "long" * 20_000: ArrayTensor(np.zeros(1)),
        }
        with pytest.raises(UnsupportedError) as caught:
            write_npz(buffer, tensors)
        assert len(caught.value.problems) == 6
        for part in ("numpy.load would give 'ok'", "zero byte, which numpy", "resource", "not Unicode", "80000 bytes"):
            assert part in str(caught.value)
        assert buffer.getvalue() == b""

    def test_progress_counts_every_byte(self):
        done = []
        write_npz(io.BytesIO(), {"a": ArrayTensor(np.zeros(5)), "b": ArrayTensor([b"abc"])}, progress=done.append)
        assert sum(done) == 43

    def test_refuses_a_tensor_of_another_size(self):
        with pytest.raises(StructureError, match="16 bytes came"):
            write_npz(io.BytesIO(), {"a": LazyTensor(DType.float64, (3,), lambda: np.zeros(2))})


class TestReader:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path_factory):
        type(self).path = str(tmp_path_factory.mktemp("npz") / "x.npz")

    @settings(max_examples=40, deadline=None)
    @given(arrays, st.booleans(), st.booleans())
    def test_reads_what_numpy_writes(self, values, compressed, fortran):
        if fortran:
            values = {name: np.asarray(value, order="F") for name, value in values.items()}
        (np.savez_compressed if compressed else np.savez)(self.path, **values)
        found = read_npz(self.path)
        assert list(found.tensors) == list(values)
        for name, value in values.items():
            tensor = found.tensors[name]
            assert (tensor.shape, tensor.dtype) == (value.shape, DType.from_numpy(value.dtype))
            assert tensor.numpy().tobytes() == streamed(tensor, 16) == value.tobytes()
            if not compressed and not fortran:
                assert isinstance(tensor, FileTensor)

    def test_chunks_of_a_compressed_array_are_full(self):
        values = np.random.default_rng(0).integers(0, 9, 1_000_000)
        np.savez_compressed(self.path, x=values)
        chunks = [bytes(chunk) for chunk in read_npz(self.path).tensors["x"].chunks(1 << 16)]
        assert {len(chunk) for chunk in chunks[:-1]} == {1 << 16}
        assert b"".join(chunks) == values.tobytes()

    def test_big_endian_arrays_are_converted(self):
        np.savez(self.path, a=np.arange(3, dtype=">f4"), u=np.array(["é", "ab"], ">U2"))
        tensors = read_npz(self.path).tensors
        assert tensors["a"].numpy().dtype == np.dtype("<f4")
        assert streamed(tensors["a"], 4) == np.arange(3, dtype="<f4").tobytes()
        assert tensors["u"].numpy().tolist() == ["é".encode(), b"ab"]

    def test_pickle_is_never_read(self, tmp_path):
        bomb = tmp_path / "ran"

        class Bomb:
            def __reduce__(self):
                return Path.touch, (bomb,)

        np.savez(self.path, plain=np.zeros(1), bad=np.array([Bomb()], object))
        found = read_npz(self.path)
        assert found.pickled == ("bad",)
        with pytest.raises(UnsupportedError, match="only pickle can read"):
            found.tensors["bad"].numpy()
        with pytest.raises(UnsupportedError):
            list(found.tensors["bad"].chunks())
        assert found.tensors["plain"].numpy().tolist() == [0]
        assert not bomb.exists()

    @pytest.mark.parametrize("values", [np.zeros(2, "i4,f4"), np.zeros(2, "M8[s]"), np.zeros(2, "V1"),
                                        np.zeros(2, "V3"), np.zeros(2, np.longdouble)])  # fmt: skip
    def test_a_foreign_type_fails_only_when_it_is_read(self, values):
        np.savez(self.path, x=values, y=np.zeros(1))
        try:
            tensors = read_npz(self.path).tensors
        except FormatError:
            assert values.dtype.kind == "M"  # a descr that no tensor can have
            return
        with pytest.raises(UnsupportedError):
            tensors["x"].numpy()
        assert tensors["y"].numpy().tolist() == [0]

    def test_other_members_are_listed(self, pack):
        found = read_npz(
            pack({"readme.txt": "x", "a.npy": npy("{'descr': '<i2', 'fortran_order': False, 'shape': ()}", b"\5\0")})
        )
        assert found.others == ("readme.txt",)
        assert found.tensors["a"].numpy() == 5

    @pytest.mark.parametrize("version", [b"\1\0", b"\2\0", b"\3\0"])
    def test_versions(self, pack, version):
        text = "{'descr': '<i2', 'fortran_order': True, 'shape': (1, 2), }\n"
        path = pack({"a.npy": npy(text, b"\5\0\6\0", version)})
        assert read_npz(path).tensors["a"].numpy().tolist() == np.load(path)["a"].tolist() == [[5, 6]]

    @pytest.mark.parametrize(("content", "message"), [
        (b"", "expected b'.x93NUMPY'"),
        (b"\x93NUMPY\x04\0" + b"\0" * 20, "version"),
        (npy("{'descr': '<i2', 'fortran_order': False}"), "header is not valid"),
        (npy("{'descr': '<i2', 'fortran_order': 0, 'shape': (1,)}", b"12"), "fortran_order is 0"),
        (npy("{'descr': '<i2', 'fortran_order': False, 'shape': [1]}", b"12"), "no tuple"),
        (npy("{'descr': '<i2', 'fortran_order': False, 'shape': (-1,)}", b"12"), "no tuple"),
        (npy("{'descr': '<i2', 'fortran_order': False, 'shape': (True,)}", b"12"), "no tuple"),
        (npy("{'descr': '<i3', 'fortran_order': False, 'shape': (1,)}", b"123"), "not valid"),
        (npy("{'descr': 'S99999999999', 'fortran_order': False, 'shape': (1,)}", b"123"), "not known"),
        (npy("{'descr': 7, 'fortran_order': False, 'shape': (1,)}", b"123"), "not known"),
        (npy("__import__('os').getpid()"), "not valid"),
        (npy("(" * 300 + ")" * 300), "not valid"),
        (npy("-" * 9000 + "1"), "not valid"),
        (npy("{'descr': '<i2', 'fortran_order': False, 'shape': (2,)}", b"123"), "needs 4 bytes, 3 follow"),
        (npy("{'descr': '<i2', 'fortran_order': False, 'shape': (1,)}", b"123"), "needs 2 bytes, 3 follow"),
        (npy("{'descr': '|S0', 'fortran_order': False, 'shape': (9999999,)}"), "needs 0 bytes"),
        (npy(f"{{'descr': '<i2', 'fortran_order': False, 'shape': ({1 << 62}, 0, 9)}}"), "more elements than"),
        (npy("{'descr': '<i2'}")[:12], "claims 16 bytes"),
    ])  # fmt: skip
    def test_refuses(self, pack, content, message):
        with pytest.raises(FormatError, match=message) as caught:
            read_npz(pack({"a.npy": content}))
        assert caught.value.path
        assert "a.npy" in str(caught.value)

    def test_limits(self, pack):
        path = pack({"a.npy": npy("{'descr': '<i2', 'fortran_order': False, 'shape': (1, 1)}", b"12")})
        with pytest.raises(LimitError, match="2 dimensions"):
            read_npz(path, Limits(max_rank=1))
        with pytest.raises(LimitError, match="2 bytes, at most 1"):
            read_npz(path, Limits(max_tensor_bytes=1))
        with pytest.raises(LimitError, match="claims 60000 bytes"):
            read_npz(pack({"a.npy": npy(b" " * 60000)}))

    def test_text_that_is_not_unicode(self, pack):
        path = pack({"a.npy": npy("{'descr': '<U1', 'fortran_order': False, 'shape': (1,)}", b"\xff\xff\xff\x7f")})
        with pytest.raises(FormatError, match="not Unicode"):
            read_npz(path).tensors["a"].numpy()

    @pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
    def test_a_flipped_bit_of_the_data_is_seen(self, save, put):
        buffer = io.BytesIO()
        save(buffer, x=np.arange(50.0))
        content = bytearray(buffer.getvalue())
        content[content.index(b"\n") + 100 if save is np.savez else content.index(b"PK\1\2") - 20] ^= 1
        tensor = read_npz(put(bytes(content))).tensors["x"]
        with pytest.raises(FormatError):
            tensor.numpy()
        with pytest.raises(FormatError):
            list(tensor.chunks())
        if save is np.savez:
            assert tensor.numpy(check=False).shape == (50,)
            with pytest.raises(ChecksumError, match="checksum mismatch"):
                tensor.numpy()

    def test_every_cut_is_seen(self, put):
        content, _ = written({"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(3, "i2")})
        for length in range(len(content)):
            with pytest.raises(FormatError):
                read_npz(put(content[:length]))
        assert issubclass(TruncatedError, FormatError)

    @pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    def test_no_flipped_bit_gives_other_values(self, pack, put, compression):
        """Every single damage raises, or leaves names, or values, as they were."""
        text = "{'descr': '<i2', 'fortran_order': False, 'shape': (2,), }\n"
        path = Path(pack({"a.npy": npy(text, b"\5\0\6\0")}, compression=compression))
        content = path.read_bytes()
        for position in range(0, 8 * len(content), 3):
            damaged = bytearray(content)
            damaged[position // 8] ^= 1 << position % 8
            try:
                values = {
                    name: tensor.numpy().tolist() for name, tensor in read_npz(put(bytes(damaged))).tensors.items()
                }
            except TfthawError:
                continue
            assert values in ({"a": [5, 6]}, {})


MEASURE = """
import sys
import numpy as np
from tfthaw.dtypes import DType
from tfthaw.formats.npz import write_npz
from tfthaw.formats.safetensors import write_safetensors
from tfthaw.tensors import Tensor

class Generated(Tensor):
    dtype, shape = DType.float32, (75, 1 << 20)
    def numpy(self):
        raise AssertionError("a writer must stream")
    def chunks(self, chunk_bytes=4 << 20):
        for index in range(75):
            yield np.full(4 << 20, index, np.uint8)

write = {"npz": write_npz, "safetensors": write_safetensors}[sys.argv[1]]
with open(sys.argv[2], "wb") as file:
    places = write(file, {"x": Generated()})
assert places["x"][1] == 300 << 20
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_writing_takes_constant_memory(kind, tmp_path):
    path = tmp_path / "large"
    done = subprocess.run([sys.executable, "-c", MEASURE, kind, path], check=True, capture_output=True, text=True)
    assert path.stat().st_size > 300 << 20
    assert int(done.stdout.split()[1]) < 150 << 10  # KiB
