"""Models trained in either Keras and saved in every way find their values in both."""

import warnings

import numpy as np
import pytest

import keras_models
import live_models
from tfthaw.conversion.code_values import CheckpointValues
from tfthaw.conversion.options import Options
from tfthaw.errors import RestoreError
from tfthaw.restore.live_checkpoints import names_by_key, object_checkpoint
from tfthaw.restore.live_differences import differences
from tfthaw.restore.live_variables import match_live
from tfthaw.runtime.live_objects import collect_objects
from tfthaw.serde.artifacts import open_artifact
from tfthaw.serde.object_views import read_stored_graph
from tfthaw.serde.trackable_object_graphs import trackable_object_graph_to_proto

pytestmark = [
    pytest.mark.tf,
    pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning"),  # Keras, of its own variables
    pytest.mark.filterwarnings("ignore:You are saving:UserWarning"),  # Keras, of its legacy format
]

LEFT_OUT = {"lists_of_layers": range(8), "recurrent": range(10, 16)}
"""What checkpoints of Keras 3 do not have, unless the optimizer has it."""


def found(path, live, **options):
    """Return what a live model finds in a checkpoint: the position of each weight -> its value."""
    with open_artifact(path) as artifact:
        stored = read_stored_graph(artifact.checkpoint)
        objects = collect_objects(live, live_models.nodes_of(live))
        matches = match_live(objects, artifact.tensors, stored, path=str(path), **options)
        values = {int(node.split()[1]): artifact.tensors[key].numpy().copy() for node, key in matches.keys.items()}
        return values, matches, differences(objects, matches, artifact.tensors, stored)


def require_trained(path, live, trained, without=(), **options):
    values, matches, _ = found(path, live, **options)
    assert sorted(values) == [number for number in range(len(trained)) if number not in without]
    for number, value in values.items():
        np.testing.assert_array_equal(value, trained[number], err_msg=matches.keys[f"weight {number}"])
    return matches


def save(tf, live, generation, folder):
    """Save a model in every way in which people save weights: what is saved -> where."""
    optimizer = live_models.keras_of(generation).optimizers.Adam()
    paths = {"model": tf.train.Checkpoint(model=live).write(str(folder / "model"))}
    paths["root"] = tf.train.Checkpoint(live).write(str(folder / "root"))
    optimizer.build(live.trainable_variables)
    deep = tf.train.Checkpoint(trainer=tf.train.Checkpoint(net=live, optimizer=optimizer), step=tf.Variable(1))
    paths["trainer"] = deep.save(str(folder / "trainer"))
    live.compile(optimizer, "mse")
    paths["compiled"] = tf.train.Checkpoint(model=live).write(str(folder / "compiled"))
    if generation == 2:
        live.save_weights(str(folder / "weights"))
        paths["weights"] = str(folder / "weights")
    names = [getattr(weight, "path", weight.name.partition(":")[0]) for weight in live.weights]
    paths["names"] = str(folder / "names")
    tf.raw_ops.SaveV2(prefix=paths["names"], tensor_names=names, shape_and_slices=[""] * len(names),
                      tensors=[tf.constant(value) for value in live.get_weights()])  # fmt: skip
    return paths


@pytest.mark.parametrize("generation", [3, 2])
@pytest.mark.parametrize("name", live_models.MODELS)
def test_every_checkpoint_fills_the_model_in_both_keras(tf, tmp_path, name, generation):
    source = live_models.build(tf, name, generation)
    trained = live_models.fill(source)
    paths = save(tf, source, generation, tmp_path)
    for other in (3, 2):
        live = live_models.built(tf, name, other)
        for kind, path in paths.items():
            is_short = generation == 3 and kind in ("model", "root")
            root = None
            if (name, generation, kind) == ("lists_of_layers", 3, "trainer"):  # whose optimizer that is, nothing says
                root = "trainer/optimizer"
                with pytest.raises(RestoreError, match=f"--checkpoint-root {root} takes them in that order"):
                    found(path, live)
            matches = require_trained(path, live, trained, LEFT_OUT.get(name, ()) if is_short else (), root=root)
            assert not matches.unused


@pytest.mark.parametrize("generation", [3, 2])
@pytest.mark.parametrize("name", ["functional", "nested", "subclassed"])
def test_objects_are_found_whatever_layers_are_called(tf, tmp_path, name, generation):
    source = live_models.build(tf, name, generation)
    trained = live_models.fill(source)
    path = tf.train.Checkpoint(model=source, other=tf.Variable(1.0)).write(str(tmp_path / "ckpt"))
    for other in (3, 2):
        keras = live_models.keras_of(other)
        live_models.MODELS[name](tf, keras)
        second = live_models.MODELS[name](tf, keras)
        matches = require_trained(path, second, trained)
        assert set(matches.reasons.values()) <= {"object", "layer"}


@pytest.mark.parametrize("generation", [3, 2])
@pytest.mark.parametrize("name", ["nested", "lists_of_layers", "recurrent", "own_weights"])
def test_keras_files_fill_the_model_in_both_keras(tf, tmp_path, name, generation):
    source = live_models.build(tf, name, generation)
    trained = live_models.fill(source)
    endings = [".weights.h5"] if name in ("lists_of_layers", "recurrent") else [".weights.h5", ".h5"]
    for ending in endings:
        path = tmp_path / f"model{ending}"
        (source.save_weights if "weights" in ending else source.save)(path)
        for other in (3, 2):
            live = live_models.built(tf, name, other)
            with open_artifact(path) as artifact:
                objects = collect_objects(live, live_models.nodes_of(live))
                matches = CheckpointValues(artifact, Options(to="saved-model")).match(objects)
                for number, value in enumerate(trained):
                    key = matches.keys[f"weight {number}"]
                    np.testing.assert_array_equal(artifact.variables[key].numpy(), value, err_msg=key)


@pytest.mark.parametrize("generation", [3, 2])
def test_after_fit(tf, tmp_path, generation):
    live = live_models.build(tf, "sequential", generation)
    live.compile("adam", "mse", metrics=["mae"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        live.fit(np.ones((8, 4), "float32"), np.ones((8, 4), "float32"), verbose=0)
    path = tf.train.Checkpoint(model=live, optimizer=live.optimizer).save(str(tmp_path / "ckpt"))
    for other in (3, 2):
        again = live_models.built(tf, "sequential", other)
        matches = require_trained(path, again, live.get_weights())
        assert matches.root == "model"
        assert not matches.unused
        again.compile("adam", "mse")
        assert not require_trained(path, again, live.get_weights()).unused


@pytest.mark.parametrize("generation", [3, 2])
def test_a_saver_of_tensorflow_1(tf, tmp_path, generation):
    v1, keras = tf.compat.v1, live_models.keras_of(generation)
    with tf.Graph().as_default(), v1.Session() as session:
        source = live_models.MODELS["sequential"](tf, keras)
        held = [getattr(weight, "value", None) if hasattr(weight, "path") else weight for weight in source.weights]
        trained = [np.random.default_rng(number).normal(size=each.shape.as_list()).astype("float32")
                   for number, each in enumerate(held)]  # fmt: skip
        session.run([each.assign(value) for each, value in zip(held, trained, strict=True)])
        path = v1.train.Saver(held).save(session, str(tmp_path / "model.ckpt"), write_meta_graph=False)
    keras = live_models.keras_of(generation)
    with tf.Graph().as_default():  # Keras 3 numbers the names of variables by operations as well in graphs
        require_trained(path, live_models.MODELS["sequential"](tf, keras), trained)
    if generation == 2:
        require_trained(path, live_models.built(tf, "sequential", 2), trained)
        require_trained(path, live_models.built(tf, "sequential", 3), trained)


@pytest.mark.parametrize("generation", [3, 2])
class TestSeveralModels:
    def nets(self, tf, generation, *units):
        keras = live_models.keras_of(generation)
        return [keras.Sequential([keras.Input((4,)), *(keras.layers.Dense(each) for each in sizes)]) for sizes in units]

    def test_equal_ones_are_told_apart_by_the_user_alone(self, tf, tmp_path, generation):
        one, other = self.nets(tf, generation, (4, 4), (4, 4))
        trained, others = live_models.fill(one, 1), live_models.fill(other, 2)
        path = tf.train.Checkpoint(generator=one, critic=other).write(str(tmp_path / "gan"))
        live = self.nets(tf, generation, (4, 4))[0]
        with pytest.raises(RestoreError, match=r"2 objects .* 'critic', 'generator'.*--checkpoint-root"):
            found(path, live)
        require_trained(path, live, trained, root="generator")
        require_trained(path, live, others, root="critic")

    def test_the_root_itself_is_the_model(self, tf, tmp_path, generation):
        one, average = self.nets(tf, generation, (4, 4), (4, 4))
        trained, averages = live_models.fill(one, 1), live_models.fill(average, 2)
        path = tf.train.Checkpoint(one, average=average).write(str(tmp_path / "ema"))
        live = self.nets(tf, generation, (4, 4))[0]
        require_trained(path, live, trained)
        require_trained(path, live, averages, root="average")

    def test_a_dict_with_other_names(self, tf, tmp_path, generation):
        one, other = self.nets(tf, generation, (4, 4), (5, 4))
        path = tf.train.Checkpoint(encoder=one, decoder=other).write(str(tmp_path / "both"))
        trained = [*live_models.fill(one, 1), *live_models.fill(other, 2)]
        path = tf.train.Checkpoint(encoder=one, decoder=other).write(str(tmp_path / "both"))
        first, second = self.nets(tf, generation, (4, 4), (5, 4))
        nodes = {**live_models.nodes_of(first),
                 **{key: f"weight {int(node.split()[1]) + 4}" for key, node in live_models.nodes_of(second).items()}}
        with open_artifact(path) as artifact:
            for root in ({"e": first, "d": second}, [first, second], {"encoder": first, "decoder": second}):
                matches = match_live(collect_objects(root, nodes), artifact.tensors,
                                     read_stored_graph(artifact.checkpoint))  # fmt: skip
                for number, value in enumerate(trained):
                    key = matches.keys[f"weight {number}"]
                    np.testing.assert_array_equal(artifact.tensors[key].numpy(), value)

    def test_of_another_architecture(self, tf, tmp_path, generation):
        path = tf.train.Checkpoint(model=self.nets(tf, generation, (4, 4))[0]).write(str(tmp_path / "ckpt"))
        _, _, lines = found(path, self.nets(tf, generation, (6, 6))[0])
        assert lines[0] == "where the code has the size 6, the checkpoint has 4"
        assert len(lines) == 5
        _, matches, lines = found(path, self.nets(tf, generation, (4, 4, 4))[0])
        assert lines[0] == "the code has 6 variables, the checkpoint 4: 1 bias more, 1 kernel more"
        assert sorted(matches.keys) == [f"weight {number}" for number in range(4)]
        _, matches, lines = found(path, self.nets(tf, generation, (4,))[0])
        assert [line.partition(":")[0] for line in lines] == ["only in the checkpoint"] * 2
        assert len(matches.unused) == 2


@pytest.mark.parametrize("generation", [3, 2])
def test_the_values_of_a_saved_model(tf, tmp_path, generation):
    source = live_models.build(tf, "subclassed", generation)
    trained = live_models.fill(source)
    if generation == 3:
        source.export(tmp_path / "saved", verbose=False)
    else:
        source.save(tmp_path / "saved")
    for other in (3, 2):
        require_trained(tmp_path / "saved", live_models.built(tf, "subclassed", other), trained)


def test_layers_in_lists_that_keras_3_never_saved_are_told(tf, tmp_path):
    source = live_models.build(tf, "lists_of_layers", 3)
    path = tf.train.Checkpoint(model=source).write(str(tmp_path / "ckpt"))
    values, _, lines = found(path, live_models.build(tf, "lists_of_layers", 3))
    assert not values
    assert any("keeps in lists or dicts" in line and "save_weights" in line for line in lines)


def test_layers_in_lists_that_were_trained_need_the_whole_model_built(tf, tmp_path):
    source = live_models.build(tf, "lists_of_layers", 3)
    source.compile("adam", "mse")
    source.optimizer.build(source.trainable_variables)
    path = tf.train.Checkpoint(model=source).write(str(tmp_path / "ckpt"))
    live = type(source)()
    live.blocks[0].build((None, 4))
    _, _, lines = found(path, live)
    assert any("call the whole model once" in line for line in lines)
    assert not any("never saved" in line for line in lines)


def test_layers_in_lists_are_found_by_the_order_of_training(tf, tmp_path):
    """Names do not help: another model was built before."""
    source = live_models.build(tf, "lists_of_layers", 3)
    trained = live_models.fill(source)
    source.compile("adam", "mse")
    source.optimizer.build(source.trainable_variables)
    path = tf.train.Checkpoint(model=source).write(str(tmp_path / "ckpt"))
    for other in (3, 2):
        keras = live_models.keras_of(other)
        keras.layers.Dense(1)
        live = live_models.MODELS["lists_of_layers"](tf, keras)
        for layer in live.layers:
            assert layer.name != "dense"
        matches = require_trained(path, live, trained)
        assert matches.notes


@pytest.mark.parametrize("generation", [3, 2])
@pytest.mark.parametrize("name", ["sequential", "subclassed", "own_weights"])
def test_tensorflow_restores_the_checkpoint_that_is_made(tf, tmp_path, name, generation):
    source = live_models.build(tf, name, generation)
    trained = live_models.fill(source)
    objects = collect_objects(source, live_models.nodes_of(source))
    written = tf.train.Checkpoint(model=source).write(str(tmp_path / "theirs"))
    with open_artifact(written) as artifact:
        stored = read_stored_graph(artifact.checkpoint)
        places = match_live(objects, artifact.tensors, stored).places
        made = object_checkpoint(objects, {place: artifact.tensors[key] for place, key in places.items()})
        assert made.tensors.keys() - {"save_counter/.ATTRIBUTES/VARIABLE_VALUE"} == set(artifact.tensors) - {
            "_CHECKPOINTABLE_OBJECT_GRAPH"
        }
        if generation == 3:
            mine = [{child.name: child.node for child in node.children} for node in made.graph.nodes[1:-1]]
            assert mine == [{child.name: child.node for child in node.children} for node in stored.nodes[1:]]
        graph = trackable_object_graph_to_proto(made.graph).SerializeToString()
        tensors = {key: tensor.numpy().copy() for key, tensor in made.tensors.items()}
    path = str(tmp_path / "ours")
    tf.raw_ops.SaveV2(prefix=path, tensor_names=[*tensors, "_CHECKPOINTABLE_OBJECT_GRAPH"],
                      shape_and_slices=[""] * (len(tensors) + 1), tensors=[*tensors.values(), graph])  # fmt: skip
    fresh = live_models.build(tf, name, generation)
    status = tf.train.Checkpoint(model=fresh).restore(path)
    status.assert_consumed()
    status.assert_existing_objects_matched()
    for value, expected in zip(fresh.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("name", keras_models.KERAS)
def test_names_of_an_object_based_checkpoint(tf, tmp_path, name):
    generation = 3 if name == "keras" else 2
    source = live_models.build(tf, "nested", generation)
    path = tf.train.Checkpoint(model=source).write(str(tmp_path / "ckpt"))
    with open_artifact(path) as artifact:
        keys = [key for key in artifact.tensors if key != "_CHECKPOINTABLE_OBJECT_GRAPH"]
        names = names_by_key(read_stored_graph(artifact.checkpoint), keys)
        values = {names[key]: artifact.tensors[key].numpy() for key in keys}
    for weight in source.weights:
        name_ = getattr(weight, "path", weight.name.partition(":")[0])
        np.testing.assert_array_equal(values[name_], np.asarray(weight))
