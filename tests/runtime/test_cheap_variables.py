"""Initial values that wait: the same values for who reads them, and none for who comes later."""

import random

import numpy as np
import pytest

import keras_models
from tfthaw.runtime.cheap_variables import LARGE_BYTES, cheap_initial_values

pytestmark = pytest.mark.tf

INITIALIZERS = (
    "Zeros", "Ones", "RandomNormal", "RandomUniform", "TruncatedNormal", "Orthogonal", "GlorotNormal", "GlorotUniform",
    "LecunNormal", "LecunUniform", "HeNormal", "HeUniform",
)  # fmt: skip
SIDE = 160  # 160 x 160 float32 is large
assert SIDE * SIDE * 4 > LARGE_BYTES


@pytest.fixture(params=keras_models.KERAS)
def keras(request):
    found = keras_models.load(request.param)
    found.backend.clear_session()
    return found


def dense(keras, initializer, **options):
    """Build one layer with a large kernel."""
    layer = keras.layers.Dense(SIDE, kernel_initializer=initializer, **options)
    layer.build((None, SIDE))
    return layer


def classifier(keras, **options):
    """Build a functional model with two large kernels."""
    x = keras.Input((SIDE,))
    hidden = keras.layers.Dense(SIDE, activation="relu", **options)(x)
    return keras.Model(x, keras.layers.Dense(SIDE, **options)(keras.layers.BatchNormalization()(hidden)))


def is_waiting(variable):
    """Whether a variable has no value."""
    import tensorflow as tf

    handle = getattr(variable, "value", variable)
    handle = handle.handle if not callable(handle) else variable.handle
    return not bool(tf.raw_ops.VarIsInitializedOp(resource=handle))


@pytest.mark.parametrize("name", INITIALIZERS)
@pytest.mark.parametrize("seed", [None, 7])
def test_values_and_random_generators_are_the_same(keras, name, seed):
    import tensorflow as tf

    def build():
        keras.utils.set_random_seed(3)
        arguments = {} if name in ("Zeros", "Ones") else {"seed": seed}
        layer = dense(keras, getattr(keras.initializers, name)(**arguments))
        drawn = random.random(), np.random.random(), float(tf.random.normal(()))
        other = dense(keras, "glorot_uniform")  # takes its seed after the first one
        return layer, other, drawn

    layer, other, drawn = build()
    with cheap_initial_values():
        cheap_layer, cheap_other, cheap_drawn = build()
        assert cheap_drawn == drawn
        np.testing.assert_array_equal(cheap_other.kernel.numpy(), other.kernel.numpy())
        np.testing.assert_array_equal(cheap_layer.kernel.numpy(), layer.kernel.numpy())


def test_building_computes_no_large_value_and_tracing_needs_none(keras):
    import tensorflow as tf

    with cheap_initial_values():
        model = classifier(keras)
    waiting = [tuple(variable.shape) for variable in model.variables if is_waiting(variable)]
    assert waiting == [(SIDE, SIDE)] * 2

    call = tf.function(lambda x: model(x, training=False), input_signature=[tf.TensorSpec([None, SIDE])])
    graph = call.get_concrete_function().graph
    assert [tuple(variable.shape) for variable in model.variables if is_waiting(variable)] == waiting
    assert sum(node.op == "MatMul" for node in graph.as_graph_def().node) == 2


def test_after_the_scope_nothing_reads_an_initial_value(keras):
    import tensorflow as tf

    with cheap_initial_values():
        layer = dense(keras, "ones")
    kernel = layer.kernel
    for read in (layer, lambda x: kernel.numpy(), lambda x: tf.matmul(x, kernel), lambda x: x + kernel):
        with pytest.raises(tf.errors.FailedPreconditionError, match="kernel:0 has no value"):
            read(tf.ones([1, SIDE]))
    layer.kernel.assign(tf.fill([SIDE, SIDE], 2.0))
    assert float(layer(tf.ones([1, SIDE]))[0, 0]) == 2.0 * SIDE


def read_by_a_call(keras, model, x):
    return model(x)


def read_by_prediction(keras, model, x):
    return model.predict(x, verbose=0)


def read_by_a_function(keras, model, x):
    import tensorflow as tf

    return tf.function(model)(x)


def read_by_saving(keras, model, x):
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy(x)


def read_under_autograph(keras, model, x):
    import tensorflow as tf

    @tf.function
    def call(x):
        for _ in tf.range(2):
            x = model(x)
        return x

    return call(x)


@pytest.mark.parametrize(
    "read", [read_by_a_call, read_by_prediction, read_by_a_function, read_by_saving, read_under_autograph]
)
def test_code_that_reads_in_the_scope_finds_the_initial_values(keras, read):
    x = np.linspace(-1, 1, SIDE, dtype="f4").reshape(1, SIDE)

    keras.utils.set_random_seed(5)
    expected = read(keras, classifier(keras), x)
    keras.utils.set_random_seed(5)
    with cheap_initial_values():
        found = read(keras, classifier(keras), x)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_a_layer_that_is_a_function_inside_of_a_functional_model_runs(keras):
    import tensorflow as tf

    class Scaled(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(SIDE, SIDE), initializer="ones", name="scale")

        @tf.function
        def call(self, x):
            return tf.matmul(x, tf.convert_to_tensor(self.scale))

    with cheap_initial_values():
        x = keras.Input((SIDE,))
        model = keras.Model(x, Scaled()(x))
        assert float(model(tf.ones([1, SIDE]))[0, 0]) == SIDE


def test_a_constant_made_of_an_initial_value_is_right(keras):
    class Projected(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(
                shape=(SIDE, SIDE), initializer=keras.initializers.RandomNormal(seed=1), name="kernel"
            )
            self.fixed = self.kernel.numpy()

        def call(self, x):
            return x

    expected = Projected()
    expected.build((None, SIDE))
    with cheap_initial_values():
        x = keras.Input((SIDE,))
        layer = Projected()
        keras.Model(x, layer(x))
    np.testing.assert_array_equal(layer.fixed, expected.fixed)
    assert np.ptp(layer.fixed) > 0


def test_mixed_precision_and_assignments_in_the_scope(keras):
    import tensorflow as tf

    with cheap_initial_values():
        model = classifier(keras, dtype="mixed_bfloat16")
        model.set_weights([np.ones(variable.shape, "f4") for variable in model.variables])
    assert float(tf.reduce_sum(tf.convert_to_tensor(model.variables[0]))) == SIDE * SIDE


def test_values_that_are_not_pure_are_computed_at_once(keras):
    import tensorflow as tf

    class Own(keras.initializers.Initializer):
        def __call__(self, shape, dtype=None, **_):
            return tf.ones(shape, dtype)

    class OwnNormal(keras.initializers.RandomNormal):
        pass

    table = np.ones((SIDE, SIDE), "f4")
    initializers = [Own(), OwnNormal(), keras.initializers.Constant(table), lambda shape, dtype=None: tf.ones(shape)]
    if keras.__name__ == "keras":
        initializers.append(keras.initializers.RandomNormal(seed=keras.random.SeedGenerator(1)))
    with cheap_initial_values():
        layers = [dense(keras, initializer) for initializer in initializers]
        variables = [tf.Variable(table), tf.Variable(lambda: tf.ones([SIDE, SIDE]))]
        small = keras.layers.Dense(2)
        small.build((None, 2))
    assert not [layer for layer in layers if is_waiting(layer.kernel)]
    assert not [variable for variable in [*variables, small.kernel] if is_waiting(variable)]


def test_graphs_of_tensorflow_1_keep_their_initialisers():
    import tensorflow as tf

    with cheap_initial_values(), tf.Graph().as_default():
        variable = tf.compat.v1.get_variable("v", [SIDE, SIDE], initializer=tf.compat.v1.ones_initializer())
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            assert session.run(variable).sum() == SIDE * SIDE


def test_the_scope_ends_with_an_error(keras):
    made = []

    def fail():
        made.append(dense(keras, "ones"))
        raise KeyError("x")

    with pytest.raises(KeyError), cheap_initial_values():
        fail()
    assert is_waiting(made[0].kernel)
    assert not is_waiting(dense(keras, "ones").kernel)
