"""Values from an object-based checkpoint go into the variables of a SavedModel that they belong to."""

import numpy as np
import pytest

import tfthaw
from tfthaw.errors import RestoreError

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return a SavedModel whose two variables have one name, and checkpoints of it with other values, as paths."""
    import tensorflow as tf

    class Layer(tf.Module):
        def __init__(self, value):
            super().__init__()
            self.kernel = tf.Variable([value], name="kernel")

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Layer(1.0), Layer(2.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x):
            return {"y": x * self.first.kernel - self.second.kernel}

    folder = tmp_path_factory.mktemp("objects")
    model = Model()
    tf.saved_model.save(model, str(folder / "saved"), signatures=model.serve)
    model.first.kernel.assign([10.0])
    model.second.kernel.assign([20.0])
    tf.train.Checkpoint(model=model).write(str(folder / "below"))
    tf.train.Checkpoint(model).write(str(folder / "same"))
    tf.train.Checkpoint(first=model.first).write(str(folder / "half"))
    return folder


def outputs(path, x):
    import tensorflow as tf

    message = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.import_graph_def(message, name="")
        return session.run("StatefulPartitionedCall:0", {"serving_default_x:0": x})


@pytest.mark.parametrize(("checkpoint", "expected"), [(None, 1.0), ("same", 10.0), ("below", 10.0)])
def test_each_variable_takes_its_own_value(saved, tmp_path, checkpoint, expected):
    chosen = None if checkpoint is None else str(saved / checkpoint)
    result = tfthaw.convert(saved / "saved", tmp_path / "f.pb", to="frozen-graph", checkpoint=chosen, verify="weights")

    x = np.float32([3, 4])
    np.testing.assert_array_equal(outputs(tmp_path / "f.pb", x), x * expected - 2 * expected)
    assert result.verified.weights.compared == 2


def test_what_a_checkpoint_lacks_is_named(saved, tmp_path):
    with pytest.raises(RestoreError) as caught:
        tfthaw.convert(saved / "saved", tmp_path / "f.pb", to="frozen-graph", checkpoint=str(saved / "half"))
    assert len(caught.value.missing) == 1
