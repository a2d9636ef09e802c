"""`.keras` archives; Keras is the oracle."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import h5py
import numpy as np
import pytest

from tfthaw.errors import (
    ChecksumError,
    FormatError,
    LimitError,
    MissingDependencyError,
    TfthawError,
    UnsafePathError,
    UnsupportedError,
)
from tfthaw.formats.keras_zip import read_keras_zip
from tfthaw.limits import Limits
from tfthaw.tensors import FileTensor

KERNEL = np.arange(6, dtype="f4").reshape(2, 3)
METADATA = {"keras_version": "3.9.2", "date_saved": "2025-06-23@00:06:38"}
CONFIG = {"module": "keras", "class_name": "Sequential", "config": {"name": "net", "layers": []}}


def weights(**options):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=KERNEL, **options)
        file["optimizer/vars/0"] = np.int64(7)
    return buffer.getvalue()


def members(**changes):
    parts = {"metadata.json": json.dumps(METADATA), "config.json": json.dumps(CONFIG), "model.weights.h5": weights(),
             "assets/vocab.txt": "a\nb"}  # fmt: skip
    return {name: content for name, content in (parts | changes).items() if content is not None}


@pytest.fixture
def pack(tmp_path):
    def write(parts, compression=zipfile.ZIP_STORED):
        path = tmp_path / "x.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, content in parts.items():
                archive.writestr(name, content)
        return str(path)

    return write


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_an_archive(pack, compression):
    found = read_keras_zip(pack(members(), compression))
    assert (found.config, found.metadata, found.keras_version) == (CONFIG, METADATA, "3.9.2")
    assert list(found.tensors) == ["layers/dense/vars/0", "optimizer/vars/0"]
    assert found.optimizer_keys == ("optimizer/vars/0",)
    assert found.assets == ("assets/vocab.txt",)
    assert found.archive.read(found.archive.members["assets/vocab.txt"], 10) == b"a\nb"
    kernel = found.tensors["layers/dense/vars/0"]
    assert isinstance(kernel, FileTensor)
    assert kernel.numpy().tolist() == KERNEL.tolist()
    assert b"".join(bytes(chunk) for chunk in kernel.chunks(8)) == KERNEL.tobytes()
    if compression == zipfile.ZIP_STORED:
        assert kernel.slice.file.path == found.path


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_compressed_datasets_inside(pack, compression):
    content = weights(chunks=(1, 3), compression="gzip")
    found = read_keras_zip(pack(members(**{"model.weights.h5": content}), compression))
    assert found.tensors["layers/dense/vars/0"].numpy().tolist() == KERNEL.tolist()


def test_lambdas(pack):
    layer = {"class_name": "Lambda", "config": {"name": "l", "function": {"class_name": "__lambda__", "config": {}}}}
    config = json.dumps({**CONFIG, "config": {"layers": [layer]}})
    assert read_keras_zip(pack(members(**{"config.json": config}))).lambdas == ("l",)


@pytest.mark.parametrize("name", ["config.json", "metadata.json", "model.weights.h5"])
def test_a_missing_member(pack, name):
    with pytest.raises(FormatError, match=f"has a member '{name}'"):
        read_keras_zip(pack(members(**{name: None})))


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_config_is_no_json(pack, content):
    with pytest.raises(FormatError, match=r"config\.json"):
        read_keras_zip(pack(members(**{"config.json": content})))


def test_pickled_weights(pack):
    parts = members(**{"model.weights.h5": None, "model.weights.npz": b"x"})
    with pytest.raises(UnsupportedError, match="pickled"):
        read_keras_zip(pack(parts))


def test_weights_that_are_no_hdf5(pack):
    with pytest.raises(FormatError, match="no HDF5 signature"):
        read_keras_zip(pack(members(**{"model.weights.h5": b"x" * 3000})))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "assets/../../evil"])
def test_paths_that_lead_out(pack, name):
    with pytest.raises(UnsafePathError):
        read_keras_zip(pack(members(**{name: b"x"})))


def test_an_external_link_in_the_weights(pack):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["x"] = h5py.ExternalLink("/etc/passwd", "/x")
    with pytest.raises(UnsafePathError, match="external link"):
        read_keras_zip(pack(members(**{"model.weights.h5": buffer.getvalue()})))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_bomb(pack, compression):
    path = pack(members(**{"model.weights.h5": bytes(200_000)}), compression)
    with pytest.raises(LimitError if compression else FormatError):
        read_keras_zip(path, Limits(max_inflation=20))
    with pytest.raises(LimitError if compression else FormatError):
        read_keras_zip(path, Limits(max_tensor_bytes=1000))


def test_a_flipped_bit_of_a_weight_is_seen(pack):
    path = pack(members())
    with open(path, "r+b") as file:
        content = file.read()
        file.seek(content.index(KERNEL.tobytes()) + 5)
        file.write(b"\x77")
    with pytest.raises(ChecksumError, match=r"model\.weights\.h5"):
        read_keras_zip(path)


def test_no_h5py(pack, monkeypatch):
    path = pack(members())
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(MissingDependencyError):
        read_keras_zip(path)


def test_cuts_and_flipped_bits(pack, tmp_path):
    path = pack(members(), zipfile.ZIP_DEFLATED)
    content = (tmp_path / "x.keras").read_bytes()
    damaged = [content[:length] for length in range(0, len(content), 29)]
    for position in range(0, 8 * len(content), 43):
        copy = bytearray(content)
        copy[position // 8] ^= 1 << position % 8
        damaged.append(bytes(copy))
    survivors = 0
    for case in damaged:
        (tmp_path / "x.keras").write_bytes(case)
        try:
            found = read_keras_zip(path)
        except TfthawError:
            continue
        survivors += 1  # dates, attributes and versions of the archive can say anything
        assert found.tensors["layers/dense/vars/0"].numpy().tolist() == KERNEL.tolist()
    assert survivors < len(damaged) // 4


@pytest.mark.tf
@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # TensorFlow variables under NumPy 2
def test_keras_writes_it(tmp_path):
    import keras

    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2, use_bias=False)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "x.keras")
    found = read_keras_zip(str(tmp_path / "x.keras"))
    assert found.keras_version == keras.__version__
    assert found.config["class_name"] == "Sequential"
    held = {name: tensor for name, tensor in found.tensors.items() if name not in found.optimizer_keys}
    assert sorted(tensor.numpy().tobytes() for tensor in held.values()) == sorted(
        value.tobytes() for value in model.get_weights()
    )
    assert len(found.optimizer_keys) == len(model.optimizer.variables)
