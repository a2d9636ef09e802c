"""Paths, keys and slots against what TensorFlow itself has, for models of tf.Module, Keras 3 and tf_keras."""

import importlib
import warnings

import numpy as np
import pytest

from tfthaw import proto
from tfthaw.formats.checkpoint_reader import OBJECT_GRAPH_KEY
from tfthaw.ir.object_graph import ObjectGraph, TrackableObjectGraph
from tfthaw.ir.object_graph_validation import object_graph_problems, stored_graph_problems
from tfthaw.ir.structured_text import call_text
from tfthaw.serde.artifacts import open_artifact
from tfthaw.serde.object_graphs import object_graph_to_proto
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def module(tf, tmp_path_factory):
    """A module with lists, dicts, a table, a cycle and a shared variable: (object, SavedModel, checkpoint)."""

    class Part(tf.Module):
        def __init__(self, value):
            super().__init__()
            self.v = tf.Variable(value, name="same_name")

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable(tf.random.normal([3, 2], seed=1), name="kernel")
            self.frozen = tf.Variable([1, 2], trainable=False)
            self.parts = [Part(1.0), Part(2.0)]
            self.named = {"a.b/c": Part(3.0)}
            self.again = self.parts[0]
            self.myself = self
            keys = tf.lookup.KeyValueTensorInitializer(["a"], [1])
            self.table = tf.lookup.StaticHashTable(keys, -1)

        @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="x")])
        def __call__(self, x):
            return x @ self.w + self.parts[0].v

        @tf.function
        def scaled(self, x, training=False, *, by=2.0):
            return x * by if training else x + self.named["a.b/c"].v

    model = Model()
    model.scaled(tf.zeros([4]))
    model.scaled(tf.zeros([4]), training=True)
    folder = tmp_path_factory.mktemp("module")
    tf.saved_model.save(model, str(folder / "saved"), signatures={"serving_default": model.__call__})
    tf.train.Checkpoint(model=model, step=tf.Variable(3)).write(str(folder / "checkpoint"))
    return model, folder / "saved", folder / "checkpoint"


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def trained(request, tf, tmp_path_factory):
    """A Keras model after one step of Adam: (model, SavedModel, checkpoint)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn
        keras = importlib.import_module(request.param)
    model = keras.Sequential([
        keras.layers.Input([4]), keras.layers.Dense(3, name="first"), keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(2, name="last"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(np.ones([8, 4]), np.arange(16.0).reshape(8, 2), verbose=0)
    folder = tmp_path_factory.mktemp(request.param)
    tf.saved_model.save(model, str(folder / "saved"))
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(folder / "checkpoint"))
    return model, folder / "saved", folder / "checkpoint"


def keys_of(tf, path):
    return {name for name, _ in tf.train.list_variables(str(path))} - {OBJECT_GRAPH_KEY}


def reached(loaded, path):
    """Follow a readable path through a loaded object."""
    for part in path.split("/"):
        name = part.replace(".S", "/").replace("..", ".")
        try:
            loaded = loaded[int(name) if name.isdigit() else name]
        except (TypeError, KeyError):
            loaded = getattr(loaded, name)
    return loaded


def test_paths_lead_to_the_variables_that_tensorflow_loads(tf, module):
    _, saved, _ = module
    loaded = tf.saved_model.load(str(saved))
    with open_artifact(saved) as artifact:
        objects = artifact.objects()
        assert {item.path for item in objects.variables} == {
            "w", "frozen", "again/v", "parts/1/v", "named/a..b.Sc/v",
        }  # fmt: skip
        for item in objects.variables:
            variable = reached(loaded, item.path)
            np.testing.assert_array_equal(artifact.variables[item.path].numpy(), variable.numpy())
            assert (item.trainable, item.name) == (variable.trainable, variable.name.partition(":")[0])
            assert item.dtype.name == variable.dtype.name
            assert list(item.shape.dims) == variable.shape.as_list()
        assert set(objects.paths_by_key()) == keys_of(tf, saved / "variables" / "variables")


def test_calls_are_those_that_tensorflow_has(tf, module):
    _, saved, _ = module
    with open_artifact(saved) as artifact:
        graph = artifact.objects().graph
        found = {
            call_text(graph.concrete_functions[name], item.kind.spec)
            for item in graph.nodes
            for name in getattr(item.kind, "concrete_functions", ())
        }
    assert {
        "(x: float32[?, 3])", "(x: float32[4], training=False, by=2.0)", "(x: float32[4], training=True, by=2.0)",
    } <= found  # fmt: skip


def test_what_modules_are_written_as_has_no_problems_and_is_written_the_same(module):
    _, saved, checkpoint = module
    assert_lossless(saved, checkpoint)


def test_what_keras_writes_has_no_problems_and_is_written_the_same(trained):
    _, saved, checkpoint = trained
    assert_lossless(saved, checkpoint)


def assert_lossless(saved, checkpoint):
    """Read every object, write it again, and compare the bytes."""
    with open_artifact(saved) as artifact:
        model, objects = artifact.model(), artifact.objects()
        whole = ObjectGraph(list(objects.graph.nodes), dict(objects.graph.concrete_functions), objects.graph.opaque)
        message = proto.SavedModel.FromString((saved / "saved_model.pb").read_bytes())
        stored = message.meta_graphs[0].object_graph_def
        assert proto.serialize(object_graph_to_proto(whole)) == proto.serialize(stored)
        assert list(object_graph_problems(
            objects.graph, functions={function.name: len(function.inputs) for function in model.graph.functions},
            assets=len(model.assets), constants={node.name for node in model.graph.nodes if node.op == "Const"},
        )) == []  # fmt: skip
    with open_artifact(checkpoint) as artifact:
        stored = artifact.objects().stored
        assert list(stored_graph_problems(stored, artifact.tensors)) == []
        data = proto.serialize(trackable_object_graph_to_proto(TrackableObjectGraph(list(stored.nodes))))
        original = proto.TrackableObjectGraph.FromString(artifact.tensors[OBJECT_GRAPH_KEY].numpy()[()])
        assert data == proto.serialize(original)


def test_every_weight_of_a_keras_model_has_its_path(tf, trained):
    model, saved, checkpoint = trained
    for path, prefix in ((checkpoint, "model/"), (saved, "")):
        with open_artifact(path) as artifact:
            for layer in model.layers:
                for weight in layer.weights:
                    name = f"{prefix}{layer.name}/{weight.name.partition(':')[0].rpartition('/')[2]}"
                    np.testing.assert_array_equal(artifact.variables[name].numpy(), weight.numpy())


def test_every_key_has_one_path_and_every_path_one_key(tf, trained):
    _, saved, checkpoint = trained
    for path, prefix in ((checkpoint, checkpoint), (saved, saved / "variables" / "variables")):
        with open_artifact(path) as artifact:
            paths = artifact.objects().paths_by_key()
            assert set(paths) == keys_of(tf, prefix)
            assert len(set(paths.values())) == len(paths)


def test_slots_are_those_of_the_optimizer(tf, trained):
    model, _, checkpoint = trained
    weights = list(model.trainable_weights)
    by_slot = {
        "momentum": "_momentums", "velocity": "_velocities", "m": "_momentums", "v": "_velocities",
    }  # fmt: skip
    with open_artifact(checkpoint) as artifact:
        objects = artifact.objects()
        slots = [item for item in objects.variables if item.slot is not None]
        assert len(slots) == 2 * len(weights)
        paths = objects.tree.paths
        for item in slots:
            owner = artifact.variables[paths[item.slot.owner]].numpy()
            position = next(
                number for number, weight in enumerate(weights)
                if weight.shape == owner.shape and np.array_equal(weight.numpy(), owner)
            )  # fmt: skip
            expected = getattr(model.optimizer, by_slot[item.slot.name])[position]
            np.testing.assert_array_equal(artifact.variables[item.path].numpy(), expected.numpy())


def test_a_saved_model_knows_what_is_trainable(trained):
    _, saved, _ = trained
    with open_artifact(saved) as artifact:
        trainable = {item.path: item.trainable for item in artifact.objects().variables}
    assert {path: flag for path, flag in trainable.items() if path.startswith("norm/")} == {
        "norm/gamma": True, "norm/beta": True, "norm/moving_mean": False, "norm/moving_variance": False,
    }  # fmt: skip
    assert not any(flag for path, flag in trainable.items() if path.startswith("optimizer/"))


def test_slots_of_older_optimizers(tf, tmp_path):
    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.w = tf.Variable([1.0, 2.0])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tf_keras
    model = Model()
    optimizer = tf_keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    optimizer.minimize(lambda: tf.reduce_sum(model.w**2), [model.w])
    tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(tmp_path / "checkpoint"))
    with open_artifact(tmp_path / "checkpoint") as artifact:
        slot = artifact.variables["optimizer/momentum/model/w"]
        np.testing.assert_array_equal(slot.numpy(), optimizer.get_slot(model.w, "momentum").numpy())
        assert "model/w/.OPTIMIZER_SLOT/optimizer/momentum/.ATTRIBUTES/VARIABLE_VALUE" in artifact.tensors
