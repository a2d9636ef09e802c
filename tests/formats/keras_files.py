"""Small Keras HDF5 files for tests."""

import json

import numpy as np

CONFIG = {"class_name": "Sequential", "config": {"name": "net", "layers": []}}


def fill_model(file):
    file.attrs["model_config"] = json.dumps(CONFIG)
    file.attrs["training_config"] = json.dumps({"loss": "mse"})
    file.attrs["keras_version"] = b"2.10.0"
    file.attrs["backend"] = "tensorflow"
    weights = file.create_group("model_weights")
    weights.attrs["layer_names"] = np.array([b"dense", b"flat"])
    weights.create_group("flat").attrs["weight_names"] = np.array([], "S1")
    dense = weights.create_group("dense")
    dense.attrs["weight_names"] = np.array([b"dense/kernel:0", b"dense/bias:0"])
    dense["dense/kernel:0"] = np.arange(6, dtype="f4").reshape(2, 3)
    dense["dense/bias:0"] = np.zeros(3, "f4")
    file["optimizer_weights/Adam/iter:0"] = np.int64(7)
