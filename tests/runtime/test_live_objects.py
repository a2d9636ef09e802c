"""Live objects as data: parts, names, and what is refused."""

import json

import pytest

import keras_models
import live_models
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.runtime.live_names import possible_names
from tfthaw.runtime.live_objects import collect_objects, live_variable

GENERATIONS = pytest.mark.parametrize("generation", [3, 2])


def place_at(objects, path, place=0):
    """Follow names through live objects; those that only another Keras has come second."""
    for name in path.split("/"):
        item = objects.nodes[place]
        place = item.children.get(name, item.other_children.get(name))
        assert place is not None, f"{name} is not among {[*item.children, *item.other_children]}"
    return place


@pytest.mark.tf
class TestKeras:
    @GENERATIONS
    @pytest.mark.parametrize("name", live_models.MODELS)
    def test_children_are_those_of_a_checkpoint(self, tf, name, generation):
        live = live_models.built(tf, name, generation)
        objects = collect_objects(live, {})
        for item in objects.nodes:
            assert item.children.keys().isdisjoint(item.other_children)
        view = tf.train.TrackableView(live)
        places = {id(live): 0}
        waiting = [live]
        for here in waiting:
            children = view.children(here)
            mine = objects.nodes[places[id(here)]].children
            assert list(children) == list(mine)
            for key, child in children.items():
                if id(child) not in places:
                    places[id(child)] = mine[key]
                    waiting.append(child)
                assert places[id(child)] == mine[key]

    @GENERATIONS
    @pytest.mark.parametrize(
        "path", ["layer_with_weights-1/layer_with_weights-0/layer_with_weights-1/moving_mean", "layers/dense_1/vars/0",
                 "layers/functional/layers/sequential/layers/batch_normalization/vars/3",
                 "layer_with_weights-2/kernel", "layer_with_weights-2/_kernel", "_trainable_variables/9"],
    )  # fmt: skip
    def test_names_of_either_keras_and_of_files_lead_there(self, tf, path, generation):
        objects = collect_objects(live_models.built(tf, "nested", generation), {})
        assert objects.nodes[place_at(objects, path)].variable is not None

    @GENERATIONS
    def test_lists_of_layers(self, tf, generation):
        objects = collect_objects(live_models.built(tf, "lists_of_layers", generation), {})
        names = {objects.nodes[place_at(objects, path)].variable.names[0].split("/")[1]
                 for path in ("blocks/0/kernel", "blocks/1/0/kernel", "heads/a/kernel", "heads/b/kernel")}  # fmt: skip
        assert len(names) == 4
        assert place_at(objects, "blocks/container/dense") == place_at(objects, "blocks/1/0")

    @GENERATIONS
    def test_it_survives_json_with_nodes_names_and_types(self, tf, generation):
        live = live_models.built(tf, "sequential", generation)
        objects = collect_objects(live, live_models.nodes_of(live))
        assert LiveObjects.from_json(json.loads(json.dumps(objects.as_json()))) == objects
        assert objects.keras == generation
        assert objects.config["class_name"] == "Sequential"
        kernel = next(each for each in objects.variables() if each.node == "weight 0")
        assert set(kernel.names[:2]) == {"dense/kernel", "sequential/dense/kernel"}
        assert (kernel.dtype, kernel.shape.dims, kernel.is_trainable) == (DType.float32, (4, 4), True)
        mean = next(each for each in objects.variables() if each.node == "weight 4")
        assert not mean.is_trainable

    @GENERATIONS
    def test_nothing_is_built_or_changed(self, tf, generation):
        keras = live_models.keras_of(generation)
        live = keras.Sequential([keras.layers.Dense(4)])
        objects = collect_objects(live, {})
        assert not objects.variables()
        assert not live.built
        assert keras.layers.Dense(1).name == "dense_1"

    def test_a_configuration_that_raises_is_none(self, tf):
        keras = keras_models.load("keras")

        class Closed(keras.Model):
            def get_config(self):
                raise RuntimeError("not for you")

        assert collect_objects(Closed(), {}).config is None


@pytest.mark.tf
class TestOtherObjects:
    def test_modules(self, tf):
        root = tf.Module()
        root.w = tf.Variable([1, 2], name="w", shape=[None])
        root.again, root.parts = root.w, [tf.Variable(1.0, trainable=False), {"a": tf.Variable(True)}]
        objects = collect_objects(root, {id(root.w): "handle"})
        assert place_at(objects, "w") == place_at(objects, "again")
        first = objects.nodes[place_at(objects, "w")].variable
        assert (first.node, first.names, first.dtype, first.shape.dims) == ("handle", ("w",), DType.int32, (None,))
        assert objects.nodes[place_at(objects, "parts/1/a")].variable.dtype is DType.bool
        assert not objects.nodes[place_at(objects, "parts/0")].variable.is_trainable
        assert (objects.keras, objects.config) == (0, None)

    @pytest.mark.parametrize("kind", ["dict", "list", "tuple", "object"])
    def test_what_python_holds_them_in(self, tf, kind):
        first, second = tf.Module(), tf.Module()
        first.v, second.v = tf.Variable(1.0), tf.Variable(2.0)
        plain = type("Plain", (), {})()
        plain.first, plain.second, plain.size = first, second, 3
        roots = {"dict": {"first": first, "second": second}, "list": [first, second], "tuple": (first, second)}
        objects = collect_objects(roots.get(kind, plain), {})
        names = ["first", "second"] if kind in ("dict", "object") else ["0", "1"]
        assert list(objects.nodes[0].children) == names
        assert objects.nodes[0].is_inner
        assert len(objects.variables()) == 2

    def test_circles_end(self, tf):
        root = tf.Module()
        root.child = tf.Module()
        root.child.parent = root
        assert len(collect_objects(root, {}).nodes) == 2

    def test_values_that_are_no_objects_are_an_empty_root(self, tf):
        for value in (None, 3, len, lambda: 1):
            assert not collect_objects(value, {}).variables()

    def test_variables_that_are_spread_are_refused(self, tf):
        root = tf.Module()
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            root.spread = tf.Variable(1.0, name="spread")
        with pytest.raises(UnsupportedError, match=r"spread.*MirroredVariable.*over devices.*strategy"):
            collect_objects(root, {})

    def test_a_list_that_no_checkpoint_takes_is_refused(self, tf):
        root = tf.Module()
        root.parts = [tf.Variable(1.0)]
        root.parts.insert(0, tf.Variable(2.0))
        with pytest.raises(UnsupportedError, match=r"ListWrapper.*may be added, never replaced"):
            collect_objects(root, {})

    def test_a_variable_by_itself(self, tf):
        found = live_variable(tf.Variable([[1.0]], name="scope/w"), "node")
        assert (found.node, found.names, found.shape.dims) == ("node", ("scope/w",), (1, 1))
        assert live_variable(tf.Variable(1.0, shape=tf.TensorShape(None))).shape.dims is None


@pytest.mark.parametrize(
    ("own", "models", "layer", "expected"),
    [
        (["sequential/dense/kernel"], ["sequential"], ("Dense", "dense"),
         ["sequential/dense/kernel", "dense/kernel", "sequential/kernel"]),
        (["dense/kernel"], ["model", "inner"], ("Dense", "dense"),
         ["dense/kernel", "inner/dense/kernel", "model/inner/dense/kernel", "inner/kernel", "model/inner/kernel"]),
        (["m/w"], ["m"], ("", ""), ["m/w"]),
        (["conv/kernel"], [], ("DepthwiseConv2D", "conv"), ["conv/kernel", "conv/depthwise_kernel"]),
        (["lstm/lstm_cell/bias"], [], ("LSTMCell", "lstm_cell"), ["lstm/lstm_cell/bias", "lstm/bias"]),
        (["time_distributed/kernel"], [], ("Dense", "dense"),
         ["time_distributed/kernel", "time_distributed/dense/kernel"]),
        (["dense_1/kernel"], ["sequential_1"], ("Dense", "dense_1"), ["dense_1/kernel", "sequential_1/dense_1/kernel"]),
    ],
)  # fmt: skip
def test_possible_names(own, models, layer, expected):
    names = possible_names(own, models, *layer)
    assert list(names[: len(own)]) == own
    assert set(expected) <= set(names)
    assert all("/" in name for name in names)
