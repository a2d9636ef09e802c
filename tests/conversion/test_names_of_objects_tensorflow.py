"""Object-based checkpoints under the names of variables, and back, with and without the code that made them."""

import numpy as np
import pytest

import tfthaw
from tfthaw.errors import UnsupportedError

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]


def build_model():
    """Return a model of two layers."""
    from tensorflow import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a"), keras.layers.Dense(2, name="b")])


@pytest.fixture(scope="module")
def trained(tf, tmp_path_factory):
    """A trained model, and the checkpoint that was saved of it and its optimizer."""
    model = build_model()
    model.compile("adam", "mse")
    model.fit(np.ones((8, 4), np.float32), np.zeros((8, 2), np.float32), verbose=0)
    folder = tmp_path_factory.mktemp("trained")
    return model, tf.train.Checkpoint(model=model, optimizer=model.optimizer).save(str(folder / "ckpt"))


def test_an_object_graph_names_its_variables_without_any_code(tf, trained, tmp_path):
    model, checkpoint = trained
    tfthaw.convert(checkpoint, tmp_path / "names", to="checkpoint", keys="names", optimizer="drop")

    reader = tf.train.load_checkpoint(str(tmp_path / "names"))
    expected = {variable.path: variable.numpy() for variable in model.variables} | {"save_counter": 1}
    assert set(reader.get_variable_to_shape_map()) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(reader.get_tensor(name), value)


def test_names_and_back_with_code(tf, trained, tmp_path):
    model, checkpoint = trained
    by_names, by_objects = tmp_path / "names", tmp_path / "objects"
    names = tfthaw.convert(build_model, by_names, to="checkpoint", keys="names", checkpoint=checkpoint)
    tfthaw.convert(build_model, by_objects, to="checkpoint", keys="objects", checkpoint=str(by_names))

    assert any("were left out" in note for note in names.notes)
    fresh = build_model()
    status = tf.train.Checkpoint(model=fresh).restore(str(by_objects))
    status.assert_consumed()
    status.assert_existing_objects_matched()
    for mine, theirs in zip(fresh.variables, model.variables, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs.numpy())


def test_weights_alone_from_code(trained, tmp_path):
    model, checkpoint = trained
    tfthaw.convert(build_model, tmp_path / "w.npz", to="npz", checkpoint=checkpoint)

    with np.load(tmp_path / "w.npz") as found:
        assert {name: value.shape for name, value in found.items()} == {
            variable.path: tuple(variable.shape) for variable in model.variables
        }


def test_variables_without_names_of_their_own_are_refused(tf, tmp_path):
    tf.train.Checkpoint(one=tf.Variable(1.0), two=tf.Variable(2.0)).write(str(tmp_path / "plain"))

    with pytest.raises(UnsupportedError, match="several variables have one name") as caught:
        tfthaw.convert(tmp_path / "plain", tmp_path / "names", to="checkpoint", keys="names")
    assert "Variable" in str(caught.value)
    assert not (tmp_path / "names.index").exists()


def test_keras_files_are_not_written_from_code(trained, tmp_path):
    with pytest.raises(UnsupportedError, match="is made of an artifact, not of code"):
        tfthaw.convert(build_model, tmp_path / "w.weights.h5", to="keras-weights", checkpoint=trained[1])
