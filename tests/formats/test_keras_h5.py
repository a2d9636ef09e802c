"""Keras HDF5 files: layouts, types, and everything in which such a file can lie; h5py and Keras are the oracles."""

from __future__ import annotations

import json

import h5py
import ml_dtypes
import numpy as np
import pytest
from keras_files import CONFIG, fill_model

from tfthaw.dtypes import DType
from tfthaw.errors import (
    UnsupportedError,
)
from tfthaw.formats.hdf5 import HDF5Tensor
from tfthaw.formats.keras_h5 import lambda_layers, read_keras_h5
from tfthaw.tensors import FileTensor


class TestLayouts:
    @pytest.mark.parametrize("options", [{}, {"libver": "latest"}, {"userblock_size": 512}])
    def test_a_model(self, make, options):
        path = make(fill_model, **options)
        found = read_keras_h5(path)
        assert (found.path, found.kind, found.keras_version, found.backend) == (
            path,
            "keras-h5",
            "2.10.0",
            "tensorflow",
        )
        assert found.config == CONFIG
        assert found.training_config == {"loss": "mse"}
        assert list(found.tensors) == [
            "model_weights/dense/dense/bias:0",
            "model_weights/dense/dense/kernel:0",
            "optimizer_weights/Adam/iter:0",
        ]
        assert found.optimizer_keys == ("optimizer_weights/Adam/iter:0",)
        assert found.layer_weights == {
            "dense": ("model_weights/dense/dense/kernel:0", "model_weights/dense/dense/bias:0"),
            "flat": (),
        }
        kernel = found.tensors["model_weights/dense/dense/kernel:0"]
        assert isinstance(kernel, FileTensor)
        assert kernel.numpy().tolist() == [[0, 1, 2], [3, 4, 5]]
        assert found.tensors["optimizer_weights/Adam/iter:0"].numpy() == 7

    def test_legacy_weights(self, make):
        def fill(file):
            file.attrs["layer_names"] = ["dense"]
            file.attrs["keras_version"] = "1.2.2"
            file["dense/w"] = np.ones(2)
            file["dense"].attrs["weight_names"] = ["w"]

        found = read_keras_h5(make(fill))
        assert (found.kind, found.config, found.keras_version) == ("keras-h5", None, "1.2.2")
        assert found.layer_weights == {"dense": ("dense/w",)}

    def test_keras_3_weights(self, make):
        def fill(file):
            file["layers/dense/vars/0"] = np.ones(2)
            file["optimizer/vars/0"] = np.int64(3)

        found = read_keras_h5(make(fill))
        assert (found.kind, found.config, found.layer_weights) == ("keras-weights", None, {})
        assert found.optimizer_keys == ("optimizer/vars/0",)

    def test_version_and_backend_beside_the_weights(self, make):
        def fill(file):
            file.attrs["model_config"] = json.dumps(CONFIG)
            file.create_group("model_weights").attrs["keras_version"] = b"2.0.6"

        assert read_keras_h5(make(fill)).keras_version == "2.0.6"

    def test_split_attributes_are_joined(self, make):
        text = json.dumps(CONFIG)

        def fill(file):
            file.attrs["model_config0"], file.attrs["model_config1"] = text[:20], text[20:]
            weights = file.create_group("model_weights")
            weights.attrs["layer_names0"], weights.attrs["layer_names1"] = [b"a"], [b"b"]
            weights["a/w"] = weights["b/w"] = np.zeros(1)
            weights["b"].attrs["weight_names0"], weights["b"].attrs["weight_names1"] = [b"w"], np.array([], "S1")

        found = read_keras_h5(make(fill))
        assert found.config == CONFIG
        assert found.layer_weights == {"a": (), "b": ("model_weights/b/w",)}

    @pytest.mark.tf
    @pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # TensorFlow variables under NumPy 2
    def test_keras_reads_the_same(self, tmp_path):
        import keras

        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((4,)), keras.layers.Dense(3, name="d"), keras.layers.BatchNormalization()]
        )
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        model.save_weights(tmp_path / "x.weights.h5")
        found = read_keras_h5(str(tmp_path / "x.weights.h5"))
        assert found.kind == "keras-weights"
        expected = sorted(value.tobytes() for value in model.get_weights())
        held = [tensor for name, tensor in found.tensors.items() if name not in found.optimizer_keys]
        assert sorted(tensor.numpy().tobytes() for tensor in held) == expected


class TestTypes:
    @pytest.mark.parametrize(
        "dtype", ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "c8", "c16", "?"]
    )
    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("layout", ["contiguous", "chunked", "compressed"])
    def test_numbers(self, make, dtype, order, layout):
        values = (np.arange(60).reshape(6, 5, 2) % 7).astype(order + dtype)
        options = {
            "contiguous": {},
            "chunked": {"chunks": (4, 2, 2)},
            "compressed": {"chunks": (4, 2, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
        }
        path = make(lambda file: file.create_dataset("x", data=values, **options[layout]))
        tensor = read_keras_h5(path).tensors["x"]
        plain = layout == "contiguous" and (order == "<" or values.dtype.itemsize == 1)
        assert isinstance(tensor, FileTensor if plain else HDF5Tensor)
        little = values.astype("<" + dtype)
        assert (tensor.dtype, tensor.shape) == (DType.from_numpy(little.dtype), (6, 5, 2))
        for chunk_bytes in (1, 50, 1 << 20):
            assert b"".join(bytes(chunk) for chunk in tensor.chunks(chunk_bytes)) == little.tobytes()
        assert tensor.numpy().tobytes() == little.tobytes()
        assert tensor.numpy().dtype == tensor.dtype.numpy

    @pytest.mark.parametrize("options", [{}, {"chunks": (2,), "compression": "lzf"}])
    def test_bfloat16(self, make, options):
        values = np.arange(5).astype(ml_dtypes.bfloat16)
        path = make(lambda file: file.create_dataset("x", data=values, **options))
        tensor = read_keras_h5(path).tensors["x"]
        assert tensor.dtype is DType.bfloat16
        assert (tensor.numpy() == values).all()
        assert b"".join(bytes(chunk) for chunk in tensor.chunks(4)) == values.tobytes()

    @pytest.mark.parametrize(
        "values", [[b"a", b"bcd"], ["é", ""], np.array([[b"a"], [b"xyz"]]), "one", np.empty((0, 2), "S3")]
    )
    def test_strings(self, make, values):
        path = make(lambda file: file.create_dataset("x", data=values))
        tensor = read_keras_h5(path).tensors["x"]
        assert tensor.dtype is DType.string
        expected = np.vectorize(lambda item: item.encode() if isinstance(item, str) else bytes(item), otypes=[object])(
            np.asarray(values, dtype=object)
        )
        assert tensor.numpy().tolist() == expected.tolist()
        assert tensor.shape == np.shape(values)

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0), (4,)])
    def test_scalars_empty_and_never_written(self, make, shape):
        def fill(file):
            file["x"] = np.ones(shape, "f4")
            file.create_dataset("free", shape, "f4", fillvalue=2)

        tensors = read_keras_h5(make(fill)).tensors
        assert tensors["x"].numpy().tolist() == np.ones(shape).tolist()
        assert tensors["free"].numpy().tolist() == np.full(shape, 2.0).tolist()
        assert b"".join(bytes(chunk) for chunk in tensors["free"].chunks()) == np.full(shape, 2, "f4").tobytes()

    def test_a_foreign_type_fails_only_when_it_is_read(self, make):
        def fill(file):
            file["fields"] = np.zeros(2, "i4,f4")
            file["float8"] = np.zeros(2, ml_dtypes.float8_e4m3fn)
            file.create_dataset("nothing", data=h5py.Empty("f4"))
            file.create_dataset("ragged", (2,), h5py.vlen_dtype("i4"))
            file.create_dataset("long", data=np.zeros(2, np.longdouble))
            file.create_dataset("packed_text", data=["a"], chunks=(1,))
            file.create_dataset("scaled", data=np.zeros(4, "i4"), chunks=(4,), scaleoffset=3)
            file["array"] = np.zeros(2, np.dtype(("f4", (3,))))
            file["ok"] = np.zeros(1)

        tensors = read_keras_h5(make(fill)).tensors
        for name in ("fields", "float8", "nothing", "ragged", "long", "packed_text", "scaled"):
            assert tensors[name].dtype is DType.invalid
            with pytest.raises(UnsupportedError) as caught:
                tensors[name].numpy()
            assert name in str(caught.value)
        assert tensors["ok"].numpy().tolist() == [0]

    def test_a_committed_type_is_no_dataset(self, make):
        def fill(file):
            file["type"] = np.dtype("f4")
            file["x"] = np.zeros(1)

        assert list(read_keras_h5(make(fill)).tensors) == ["x"]


class TestLambdas:
    def test_keras_2_bytecode(self):
        layer = {
            "class_name": "Lambda",
            "config": {"name": "l", "function": ["4wEAAA==", None, None], "function_type": "lambda"},
        }
        named = {"class_name": "Lambda", "config": {"name": "m", "function": "relu", "function_type": "function"}}
        shaped = {
            "class_name": "Lambda",
            "config": {"name": "n", "function_type": "function", "output_shape_type": "lambda"},
        }
        assert lambda_layers({"class_name": "Sequential", "config": [layer, named, shaped]}) == ("l", "n")

    def test_keras_3_bytecode(self):
        code = {"class_name": "__lambda__", "config": {"code": "4wEAAA=="}}
        layer = {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "l", "function": code}}
        dense = {"class_name": "Dense", "config": {"name": "d", "activation": code}}
        assert lambda_layers({"class_name": "Model", "config": {"name": "m", "layers": [layer, dense]}}) == ("l", "d")

    def test_any_depth(self):
        value: dict = {"class_name": "__lambda__"}
        for _ in range(100_000):
            value = {"config": value}
        assert lambda_layers(value) == ("model",)
        while value:  # taken apart by hand: freeing it recursively is deep too
            value = value.pop("config", {}) if "config" in value else {}

    def test_a_file(self, make):
        layer = {"class_name": "Lambda", "config": {"name": "l", "function": ["x"], "function_type": "lambda"}}
        path = make(
            lambda file: file.attrs.create("model_config", json.dumps({**CONFIG, "config": {"layers": [layer]}}))
        )
        assert read_keras_h5(path).lambdas == ("l",)
