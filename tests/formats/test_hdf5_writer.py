"""HDF5 files that are written: h5py reads them, so do we, and what the format cannot hold is refused."""

from __future__ import annotations

import sys

import h5py
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, MissingDependencyError, StructureError, UnsupportedError
from tfthaw.formats.hdf5 import read_text_attributes
from tfthaw.formats.hdf5_writer import HDF5Contents, write_hdf5
from tfthaw.formats.keras_h5 import read_keras_h5
from tfthaw.tensors import ArrayTensor, FileTensor, LazyTensor

TYPES = ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c8", "c16", "?"]


def written(path, tensors, attributes=None):
    write_hdf5(path, HDF5Contents(tensors, attributes or {}))
    return read_keras_h5(str(path)).tensors


class TestDatasets:
    @pytest.mark.parametrize("dtype", TYPES)
    @pytest.mark.parametrize("shape", [(), (3,), (2, 3), (0, 3), (1, 1, 1, 1)])
    def test_every_type_and_shape(self, tmp_path, dtype, shape):
        values = (np.arange(int(np.prod(shape))).reshape(shape) % 2).astype(dtype)
        found = written(tmp_path / "x.h5", {"a/b": ArrayTensor(values)})["a/b"]
        assert (found.dtype, found.shape) == (DType.from_numpy(values.dtype), shape)
        assert found.numpy().tobytes() == values.tobytes()
        with h5py.File(tmp_path / "x.h5") as file:
            assert file["a/b"].dtype == values.dtype
            np.testing.assert_array_equal(file["a/b"][()], values)

    def test_bfloat16_as_h5py_writes_it(self, tmp_path):
        values = np.arange(5).astype(ml_dtypes.bfloat16)
        assert written(tmp_path / "x.h5", {"x": ArrayTensor(values)})["x"].dtype is DType.bfloat16
        with h5py.File(tmp_path / "theirs.h5", "w") as file:
            file["x"] = values
            theirs = file["x"].id.get_type()
            with h5py.File(tmp_path / "x.h5") as ours:
                assert ours["x"].id.get_type() == theirs
                assert ours["x"][()].tobytes() == values.tobytes()

    @settings(max_examples=30, deadline=None)
    @given(st.dictionaries(
        st.lists(st.text("abcé:", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join),
        hypothesis_numpy.arrays(st.sampled_from(TYPES), hypothesis_numpy.array_shapes(min_dims=0, max_dims=3)),
        max_size=5,
    ))  # fmt: skip
    def test_what_is_written_is_read(self, tmp_path_factory, arrays):
        tensors = {name: ArrayTensor(array) for name, array in arrays.items()}
        clashes = {name for name in tensors if any(other.startswith(f"{name}/") for other in tensors)}
        path = tmp_path_factory.mktemp("written") / "x.h5"
        if clashes:
            with pytest.raises(UnsupportedError) as caught:
                written(path, tensors)
            assert len(caught.value.problems) == len(clashes)
            assert not path.exists()
            return
        found = written(path, tensors)
        assert list(found) == sorted(tensors)
        for name, tensor in tensors.items():
            assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
            assert found[name].numpy().tobytes() == tensor.numpy().tobytes()

    def test_each_lies_in_one_piece_and_comes_from_its_source(self, tmp_path):
        tensors = {"a": ArrayTensor(np.arange(1000, dtype="f4")), "b": ArrayTensor(np.arange(7, dtype="i8"))}
        first = written(tmp_path / "x.h5", tensors)
        assert all(isinstance(tensor, FileTensor) for tensor in first.values())
        again = written(tmp_path / "y.h5", first)
        assert again["b"].numpy().tolist() == list(range(7))
        assert (tmp_path / "x.h5").read_bytes() == (tmp_path / "y.h5").read_bytes()

    def test_progress_counts_every_byte(self, tmp_path):
        counts = []
        tensors = {"a": ArrayTensor(np.zeros(10, "f4")), "b": ArrayTensor(np.zeros((), "f8"))}
        write_hdf5(tmp_path / "x.h5", HDF5Contents(tensors), counts.append)
        assert sum(counts) == 48


class TestAttributes:
    def test_texts_and_lists_at_groups_and_datasets(self, tmp_path):
        attributes = {"": {"one": "text é"}, "g": {"names": ["a", "bc"], "none": []}, "g/x": {"dtype": "bfloat16"}}
        written(tmp_path / "x.h5", {"g/x": ArrayTensor(np.zeros(1))}, attributes)
        assert read_text_attributes(SourceFile(tmp_path / "x.h5").slice()) == attributes

    def test_groups_without_datasets(self, tmp_path):
        written(tmp_path / "x.h5", {}, {"a/b": {}})
        found = read_text_attributes(SourceFile(tmp_path / "x.h5").slice())
        assert found == {"": {}, "a": {}, "a/b": {}}

    def test_long_lists_are_split_as_keras_does(self, tmp_path):
        names = [f"layer_{number:05}" for number in range(20_000)]
        write_hdf5(tmp_path / "x.h5", HDF5Contents({}, {"": {"layer_names": names, "long": "x" * 100_000}}))
        found = read_text_attributes(SourceFile(tmp_path / "x.h5").slice())[""]
        assert found.pop("long") == "x" * 100_000
        assert [name for number in range(len(found)) for name in found[f"layer_names{number}"]] == names
        assert len(found) > 1

    def test_a_name_too_long_for_a_list(self, tmp_path):
        with pytest.raises(UnsupportedError, match="too long for an attribute"):
            written(tmp_path / "x.h5", {}, {"": {"names": ["x" * 70_000]}})

    def test_numbers_are_no_text_and_an_empty_list_is_one(self, tmp_path):
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file.attrs["count"], file.attrs["none"], file.attrs["nothing"] = 3, np.array([]), h5py.Empty("f4")
        assert read_text_attributes(SourceFile(tmp_path / "x.h5").slice()) == {"": {"none": []}}

    def test_of_a_damaged_file(self, tmp_path):
        written(tmp_path / "x.h5", {"a/b": ArrayTensor(np.zeros(3))}, {"": {"text": "x" * 50}})
        data = (tmp_path / "x.h5").read_bytes()
        for end in range(0, len(data), 97):
            (tmp_path / "cut.h5").write_bytes(data[:end])
            with pytest.raises(FormatError):
                read_text_attributes(SourceFile(tmp_path / "cut.h5").slice())


class TestRefusals:
    def test_everything_that_it_cannot_hold_at_once(self, tmp_path):
        tensors = {
            "text": ArrayTensor(np.array([b"a"], object), DType.string),
            "float8": ArrayTensor(np.zeros(2, ml_dtypes.float8_e5m2)),
            "many": LazyTensor(DType.float32, (1,) * 33, lambda: np.zeros(1)),
            "a//b": ArrayTensor(np.zeros(1)),
            "./x": ArrayTensor(np.zeros(1)),
            "nul\0": ArrayTensor(np.zeros(1)),
            "\ud800": ArrayTensor(np.zeros(1)),
            "fine": ArrayTensor(np.zeros(1)),
            "fine/too": ArrayTensor(np.zeros(1)),
        }
        with pytest.raises(UnsupportedError) as caught:
            write_hdf5(tmp_path / "x.h5", HDF5Contents(tensors))
        assert len(caught.value.problems) == 8
        assert "HDF5 cannot hold 8 of 9 tensors" in str(caught.value)
        assert not (tmp_path / "x.h5").exists()

    def test_a_group_where_a_dataset_is(self, tmp_path):
        with pytest.raises(UnsupportedError, match="a dataset is no group"):
            write_hdf5(tmp_path / "x.h5", HDF5Contents({"a": ArrayTensor(np.zeros(1))}, {"a/b": {}}))

    def test_a_source_that_gives_too_little(self, tmp_path):
        short = LazyTensor(DType.float32, (4,), lambda: np.zeros(3, "f4"))
        with pytest.raises(StructureError, match="12 bytes came"):
            write_hdf5(tmp_path / "x.h5", HDF5Contents({"a": short}))

    def test_without_h5py(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "h5py", None)
        with pytest.raises(MissingDependencyError, match=r'pip install "tfthaw\[keras\]"'):
            write_hdf5(tmp_path / "x.h5", HDF5Contents({}))
