"""Code as users have it that cannot be exported as it is, one mistake a function; it is loaded, never imported."""

import tensorflow as tf

v1 = tf.compat.v1


def raises():
    settings = {"units": 3}
    return tf.keras.layers.Dense(settings["unit"])


def needs_arguments(units, rate=0.1):
    return tf.keras.Sequential([tf.keras.Input((4,)), tf.keras.layers.Dense(units), tf.keras.layers.Dropout(rate)])


def gives_a_number():
    return 3


def gives_nothing():
    pass


def gives_two_models():
    return needs_arguments(2), needs_arguments(3)


def gives_a_list_of_models():
    return [needs_arguments(2)]


def gives_a_generator():
    yield needs_arguments(2)


def gives_an_optimizer_too():
    return needs_arguments(2), tf.keras.optimizers.Adam()


def gives_a_history():
    model = needs_arguments(1)
    model.compile(loss="mse")
    return model.fit(tf.zeros([4, 4]), tf.zeros([4, 1]), verbose=0)


def shapes_do_not_fit():
    dense = tf.keras.layers.Dense(2)
    dense.build((None, 5))
    return tf.keras.Sequential([tf.keras.Input((4,)), dense])


class Subclassed(tf.keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def never_called():
    return Subclassed()


class FreshVariables(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None])])
    def __call__(self, x):
        scale = tf.Variable(2.0)
        return x * scale


class FreshLayers(tf.keras.Model):
    def call(self, x):
        return tf.keras.layers.Dense(2)(x)


@tf.function
def without_signature(x):
    return x + 1.0


@tf.function(input_signature=[tf.TensorSpec([3])])
def if_on_many(x):
    if x > 0:
        return x
    return -x


@tf.function(input_signature=[tf.TensorSpec([None, 3])])
def and_on_many(x):
    if x > 0 and tf.reduce_sum(x) > 1:
        return x
    return -x


@tf.function(input_signature=[tf.TensorSpec([None, 3])])
def choice_on_many(x):
    return x if 0 < x < 1 else -x


@tf.function(input_signature=[tf.TensorSpec([None, 3])])
def cond_on_many(x):
    return tf.cond(x > 0, lambda: x, lambda: -x)


@tf.function(input_signature=[tf.TensorSpec([None, 3])])
def casts(x):
    return tf.cast(x, tf.float32)


@tf.function(input_signature=[tf.TensorSpec([])], autograph=False)
def if_without_autograph(x):
    if x > 0:
        return x
    return -x


def if_in_a_graph():
    x = v1.placeholder(tf.float32, [3], "x")
    return x if x[0] > 0 else -x


@tf.function(input_signature=[tf.TensorSpec([3])])
def numpy_inside(x):
    return x * x.numpy().max()


@tf.function(input_signature=[tf.TensorSpec([])])
def one_branch(x):
    if x > 0:
        y = x
    return y


@tf.function(input_signature=[tf.TensorSpec([2, 3])])
def inner_shapes(x):
    return tf.matmul(x, tf.ones([4, 2]))


@tf.function(input_signature=[tf.TensorSpec([None])])
def raises_while_traced(x):
    return x * {}["scale"]


def tensorflow_1():
    x = tf.placeholder(tf.float32, [None, 4])
    return tf.layers.dense(x, 2)


def contrib():
    return tf.contrib.layers.fully_connected(None, 3)


def clears_its_graph():
    x = v1.placeholder(tf.float32, [None, 4])
    v1.reset_default_graph()
    return x


def unknown_op():
    return tf.Graph(), tf.import_graph_def(_graph_with("NoSuchOp"))


def _graph_with(op):
    graph = v1.GraphDef()
    graph.node.add(name="node", op=op)
    return graph


# Keras 2 code under Keras 3


class PositionalName(tf.keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight("kernel", [shape[-1], 2])

    def call(self, x):
        return x @ self.kernel


def positional_name():
    return tf.keras.Sequential([tf.keras.Input((4,)), PositionalName()])


def legacy_optimizer():
    return tf.keras.optimizers.legacy.Adam(1e-3)


def layers_of_version_1():
    x = v1.placeholder(tf.float32, [None, 4], "x")
    return v1.layers.dense(x, 2)


def op_on_keras_tensor():
    x = tf.keras.Input((4,))
    return tf.keras.Model(x, tf.nn.relu(x))


def removed_argument():
    return tf.keras.optimizers.Adam(lr=0.1)


def removed_layer():
    return tf.keras.layers.experimental.preprocessing.Rescaling(1.0)
