"""Keras files and object-based checkpoints into each other, loaded by Keras 3 and tf_keras, outputs compared."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import keras_models
from tfthaw.conversion.converting import convert
from tfthaw.errors import UnsupportedError
from tfthaw.serde.artifacts import open_artifact

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

EXTENSIONS = {"keras-h5": ".h5", "keras-weights": ".weights.h5", "keras-zip": ".keras", "checkpoint": ""}


@pytest.fixture(scope="module")
def saved(tf, tmp_path_factory):
    """Return a function that makes a model once, and saves it in every format that its Keras has."""
    made = {}

    def get(flavor, name):
        if (flavor, name) not in made:
            folder = tmp_path_factory.mktemp(f"{flavor}_{name}")
            one = keras_models.make(keras_models.load(flavor), name)
            one.outputs, one.folder, one.values = keras_models.outputs(one), folder, one.model.get_weights()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                one.model.save(folder / "model.keras")
                one.model.save(folder / "model.h5")
                one.model.save_weights(folder / "model.weights.h5")
            tf.train.Checkpoint(model=one.model).write(str(folder / "checkpoint"))
            one.fresh = keras_models.make(keras_models.load(flavor), name, seed=1)
            one.fresh.model.save(folder / "other.keras")
            one.others = one.fresh.model.get_weights()
            made[flavor, name] = one
        return made[flavor, name]

    return get


def restored(tf, flavor, one, path, to):
    """Load what was written with Keras itself, into a model with other values or as a model of its own."""
    fresh = SimpleNamespace(model=one.fresh.model, feed=one.feed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fresh.model.set_weights(one.others)
        if to == "checkpoint":
            status = tf.train.Checkpoint(model=fresh.model).restore(str(path))
            status.assert_existing_objects_matched()
            status.assert_consumed()
        elif to == "keras-weights":
            fresh.model.load_weights(str(path))
        else:
            fresh.model = keras_models.load(flavor).models.load_model(str(path))
    return fresh


def assert_same(found, expected):
    values = found.model.get_weights()
    assert [value.dtype for value in values] == [value.dtype for value in expected.values]
    for value, other in zip(values, expected.values, strict=True):
        np.testing.assert_array_equal(value, other)
    np.testing.assert_allclose(keras_models.outputs(found), expected.outputs, rtol=1e-6)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize("name", keras_models.NAMES)
@pytest.mark.parametrize(("source", "to"), [
    ("model.keras", "keras-h5"), ("model.keras", "keras-weights"), ("model.keras", "checkpoint"),
    ("model.h5", "keras-weights"), ("model.h5", "keras-zip"), ("model.h5", "checkpoint"),
])  # fmt: skip
def test_from_a_model(tf, saved, tmp_path, flavor, name, source, to):
    one = saved(flavor, name)
    target = tmp_path / f"new{EXTENSIONS[to]}"
    result = convert(one.folder / source, target, to=to, **({"keys": "objects"} if to == "checkpoint" else {}))

    assert result.format == to
    assert_same(restored(tf, flavor, one, target, to), one)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize(("source", "to"), [("model.keras", "keras-zip"), ("model.h5", "keras-h5")])
def test_the_same_format_again(tf, saved, tmp_path, flavor, source, to):
    one = saved(flavor, "convolutions")
    target = tmp_path / f"new{EXTENSIONS[to]}"
    convert(one.folder / source, target, to=to)

    assert_same(restored(tf, flavor, one, target, to), one)


@pytest.mark.parametrize("name", ["bfloat16", "operation"])
@pytest.mark.parametrize("to", ["keras-weights", "keras-zip", "checkpoint"])
def test_what_keras_cannot_read_back_from_h5(tf, saved, tmp_path, name, to):
    one = saved("keras", name)
    target = tmp_path / f"new{EXTENSIONS[to]}"
    convert(one.folder / "model.keras", target, to=to, **({"keys": "objects"} if to == "checkpoint" else {}))

    assert_same(restored(tf, "keras", one, target, to), one)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
def test_bfloat16_is_refused_where_keras_could_not_read_it(saved, tmp_path, flavor):
    one = saved(flavor, "bfloat16")
    with pytest.raises(UnsupportedError) as caught:
        convert(one.folder / "model.keras", tmp_path / "new", to="keras-h5")
    assert caught.value.problems == ("layers/dense/vars/0", "layers/dense/vars/1")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize("name", keras_models.NAMES)
def test_values_of_a_checkpoint(tf, saved, tmp_path, flavor, name):
    one = saved(flavor, name)
    convert(one.folder / "other.keras", tmp_path / "new.weights.h5", to="keras-weights",
            checkpoint=str(one.folder / "checkpoint"))  # fmt: skip

    assert_same(restored(tf, flavor, one, tmp_path / "new.weights.h5", "keras-weights"), one)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize("name", ["dense", "recurrent", "nested", "frozen"])
@pytest.mark.parametrize("values", ["model.weights.h5", "model.h5"])
def test_values_of_another_file(tf, saved, tmp_path, flavor, name, values):
    one = saved(flavor, name)
    target = tmp_path / "new"
    convert(one.folder / "other.keras", target, to="checkpoint", keys="objects", checkpoint=str(one.folder / values))

    assert_same(restored(tf, flavor, one, target, "checkpoint"), one)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize("name", ["dense", "recurrent", "nested", "frozen"])
def test_values_into_a_checkpoint(tf, saved, tmp_path, flavor, name):
    """The checkpoint tells the structure, the Keras file the values."""
    one = saved(flavor, name)
    tf.train.Checkpoint(model=one.fresh.model).save(str(tmp_path / "old"))
    target = tmp_path / "new"
    convert(tmp_path / "old-1", target, to="checkpoint", keys="objects", checkpoint=str(one.folder / "model.keras"))

    assert_same(restored(tf, flavor, one, target, "checkpoint"), one)


@pytest.mark.parametrize("name", ["dense", "recurrent", "nested", "normalized"])
def test_tf_keras_loads_the_checkpoint_as_weights(tf, saved, tmp_path, name):
    one = saved("tf_keras", name)
    convert(one.folder / "model.keras", tmp_path / "new", to="checkpoint", keys="objects")
    one.fresh.model.set_weights(one.others)
    one.fresh.model.load_weights(str(tmp_path / "new")).assert_existing_objects_matched()

    assert_same(one.fresh, one)


@pytest.mark.parametrize("flavor", keras_models.KERAS)
@pytest.mark.parametrize("name", ["convolutions", "nested"])
@pytest.mark.parametrize("source", ["model.keras", "model.h5", "model.weights.h5"])
def test_there_and_back_through_safetensors(tf, saved, tmp_path, flavor, name, source):
    one = saved(flavor, name)
    formats = {"model.keras": "keras-zip", "model.h5": "keras-h5", "model.weights.h5": "keras-weights"}
    target = tmp_path / source
    convert(one.folder / source, tmp_path / "middle", to="safetensors", optimizer="keep")
    convert(tmp_path / "middle", target, to=formats[source])

    with open_artifact(one.folder / source) as before, open_artifact(target) as after:
        assert list(before.variables) == list(after.variables)
        assert before.keras.config == after.keras.config
    assert_same(restored(tf, flavor, one, target, formats[source]), one)
