"""Where layouts keep variables, and which value fills which."""

from __future__ import annotations

import numpy as np
import pytest

from keras_configs import functional, layer, sequential
from tfthaw.errors import RestoreError, UnsupportedError
from tfthaw.ir.object_graph import Child, SerializedTensor, TrackableObject, TrackableObjectGraph
from tfthaw.restore.keras_assignment import assign, by_slot, require_fitting
from tfthaw.restore.keras_layouts import (
    Slot,
    legacy_names,
    legacy_order,
    locate_legacy,
    locate_objects,
    locate_saved,
    saved_names,
)
from tfthaw.restore.keras_objects import keras_objects
from tfthaw.restore.keras_tree import keras_tree
from tfthaw.tensors import ArrayTensor

CONFIG = sequential(
    layer("Dense", "a"), layer("BatchNormalization", "b"), layer("Bidirectional", "c", layer=layer("LSTM"))
)


@pytest.mark.parametrize("generation", [2, 3])
def test_each_layout_finds_what_it_names(generation):
    tree = keras_tree(CONFIG, generation)
    saved, groups = saved_names(tree)
    legacy, listed = legacy_names(tree, generation)
    objects = keras_objects(tree, generation)
    keys = list(objects.slots.values())
    assert len(saved) == len(legacy) == len(keys) == 12
    assert set(groups) >= {name.rpartition("/")[0] for name in saved.values()}
    found = [
        locate_saved(tree, saved.values()),
        locate_legacy(tree, {name: [f"{name}/{weight}" for weight in weights] for name, weights in listed.items()},
                      legacy.values(), generation),
        locate_objects(tree, objects.graph, keys),
    ]  # fmt: skip
    for located, expected in zip(found, (saved, legacy, objects.slots), strict=True):
        assert located.slots == expected
        assert (located.missing, located.rest, located.regions) == ([], [], {})


def test_legacy_names_are_unique_and_in_order_of_training():
    tree = keras_tree(sequential(sequential(layer("BatchNormalization", "x"), layer("Dense", "x"), name="inner")), 3)
    slots, listed = legacy_names(tree, 3)
    assert listed["inner"] == ["inner/x/gamma", "inner/x/beta", "inner/x/kernel", "inner/x/bias", "inner/x/moving_mean",
                               "inner/x/moving_variance"]  # fmt: skip
    assert len(set(slots.values())) == 6
    twins = keras_tree(sequential(sequential(layer("Dense", "x"), layer("Dense", "x"), name="inner")), 2)
    assert legacy_names(twins, 2)[1]["inner"] == [
        "inner/x/kernel:0", "inner/x/bias:0", "inner/x/kernel_1:0", "inner/x/bias_1:0",
    ]  # fmt: skip


def test_frozen_layers_come_in_another_order():
    inner = functional(layer("BatchNormalization", "n"), layer("Dense", "d"))
    inner["config"]["trainable"] = False
    tree = keras_tree(inner, 3)
    assert [slot.place for slot in legacy_order(tree, (), 3)] == [(0,)] * 4 + [(1,)] * 2
    inner["config"]["trainable"] = True
    assert [slot.place for slot in legacy_order(keras_tree(inner, 3), (), 3)] == [(0,)] * 2 + [(1,)] * 2 + [(0,)] * 2


def test_saved_files_of_other_versions_have_other_names():
    tree = keras_tree(sequential(layer("MultiHeadAttention", use_bias=False)), 3)
    names = [f"_layer_checkpoint_dependencies/multi_head_attention/_{part}_dense/vars/0"
             for part in ("query", "key", "value", "output")]  # fmt: skip
    assert set(locate_saved(tree, names).slots.values()) == set(names)


def test_what_belongs_to_no_layer():
    tree = keras_tree(sequential(layer("Dense", use_bias=False)), 3)
    names = ["layers/dense/vars/0", "layers/dense/vars/1", "layers/other/vars/0", "optimizer/vars/10",
             "optimizer/vars/9", "metrics/mean/vars/0"]  # fmt: skip
    found = locate_saved(tree, names)
    assert found.rest == ["layers/dense/vars/1", "layers/other/vars/0"]
    assert found.optimizer == ["optimizer/vars/9", "optimizer/vars/10"]
    assert found.aside == ["metrics/mean/vars/0"]
    assert locate_saved(tree, names[1:2]).missing == ["layers/dense/vars/0"]


def test_legacy_names_speak_against_the_order():
    tree = keras_tree(sequential(layer("Dense", "d")), 2)
    found = locate_legacy(tree, {"d": ["d/bias:0", "d/kernel:0"]}, ["d/bias:0", "d/kernel:0"], 2)
    assert found.misnamed == ["kernel of d: d/bias:0 is in its place", "bias of d: d/kernel:0 is in its place"]
    numbered = locate_legacy(tree, {"d": ["d/kernel_3:0", "d/bias_1:0"]}, ["d/kernel_3:0", "d/bias_1:0"], 2)
    assert numbered.misnamed == []


def test_legacy_layers_of_other_names_go_by_their_order():
    tree = keras_tree(sequential(layer("Dense", "d"), layer("Dropout", "o"), layer("PReLU", "p")), 2)
    listed = {"x": ["x/kernel:0", "x/bias:0"], "y": [], "z": ["z/alpha:0"]}
    found = locate_legacy(tree, listed, ["x/kernel:0", "x/bias:0", "z/alpha:0"], 2)
    assert found.slots[Slot((2,), 0)] == "z/alpha:0"
    assert found.notes == ["layers were matched by their order, since their names differ"]


def test_object_graphs_with_lies():
    """Edges that lead nowhere or around in a circle, and values without key."""
    nodes = [
        TrackableObject([Child(1, "model"), Child(99, "far"), Child(-1, "before"), Child(0, "self")]),
        TrackableObject([Child(2, "_functional"), Child(0, "root")]),
        TrackableObject([Child(3, "_operations"), Child(1, "back")]),
        TrackableObject([Child(4, "1")]),
        TrackableObject([Child(5, "_kernel"), Child(4, "bias")]),
        TrackableObject([], [SerializedTensor("OTHER", "", "x"), SerializedTensor("VARIABLE_VALUE", "d/kernel", "k")]),
    ]
    found = locate_objects(keras_tree(sequential(layer("Dense")), 3), TrackableObjectGraph(nodes), ["k"])
    assert found.slots == {Slot((0,), 0): "k"}
    assert found.missing == ["_functional/_operations/1/bias"]
    empty = locate_objects(keras_tree(sequential(layer("Dense")), 3), TrackableObjectGraph([TrackableObject()]), [])
    assert len(empty.missing) == 2


def test_layers_in_lists_have_no_place_in_object_graphs_of_keras_3():
    cells = layer("StackedRNNCells", cells=[layer("LSTMCell"), layer("GRUCell", "g")])
    config = sequential(layer("RNN", "r", cell=cells))
    with pytest.raises(UnsupportedError) as caught:
        keras_objects(keras_tree(config, 3), 3)
    assert caught.value.problems == ("r/stackedrnncells/lstmcell: 3 variables", "r/stackedrnncells/g: 3 variables")
    assert len(keras_objects(keras_tree(config, 2), 2).slots) == 6


def tensors(**arrays):
    return {name.replace("__", "/"): ArrayTensor(np.asarray(value, "f4")) for name, value in arrays.items()}


class TestAssignment:
    tree = keras_tree(sequential(layer("Mine", "m"), layer("Dense", "d", use_bias=False)), 3)

    def both(self, target, source):
        listed = {"m": [name for name in source if name.startswith("m/")], "d": ["d/kernel"]}
        values = locate_legacy(self.tree, listed, source, 3)
        return assign(self.tree, locate_saved(self.tree, target), values, target, source)

    def test_by_place_and_by_shape(self):
        target = tensors(layers__mine__vars__0=[1, 2], layers__mine__vars__1=[[3]], layers__dense__vars__0=[4])
        source = tensors(m__one=[[3]], m__two=[1, 2], d__kernel=[4])
        found = self.both(target, source)
        require_fitting(found, target, source, path="x")
        assert found.pairs == {
            "layers/mine/vars/0": "m/two", "layers/mine/vars/1": "m/one", "layers/dense/vars/0": "d/kernel",
        }  # fmt: skip

    def test_nothing_is_guessed(self):
        target = tensors(layers__mine__vars__0=[1, 2], layers__mine__vars__1=[3, 4], layers__dense__vars__0=[4])
        source = tensors(m__one=[1, 2], m__two=[3, 4], d__kernel=[4])
        with pytest.raises(RestoreError, match=r"layer m: which of m/one, m/two is .* nothing tells"):
            require_fitting(self.both(target, source), target, source, path="x")

    def test_everything_that_does_not_fit_at_once(self):
        target = tensors(layers__mine__vars__0=[1, 2], layers__mine__vars__1=[3], layers__dense__vars__0=[4])
        source = tensors(m__one=[1, 2], m__two=[[3]], m__three=[[[1]]], d__kernel=[4, 4], e__kernel=[1])
        with pytest.raises(RestoreError) as caught:
            require_fitting(self.both(target, source), target, source, path="x")
        assert caught.value.missing == ("layers/mine/vars/1",)
        assert set(caught.value.unused) == {"m/two", "m/three", "e/kernel"}
        assert caught.value.mismatched == ("layers/dense/vars/0: float32[1], the value d/kernel has float32[2]",)

    def test_the_family_of_a_layer_of_keras_is_known_by_its_names(self):
        attributes = ["gamma", "beta", "moving_mean", "moving_variance"]
        nodes = [TrackableObject([Child(1, "_functional")]), TrackableObject([Child(2, "_operations")]),
                 TrackableObject([Child(3, "1"), Child(9, "2")]), TrackableObject([Child(4, "norm")]),
                 TrackableObject([Child(8 - place, name) for place, name in enumerate(attributes)])]  # fmt: skip
        nodes += [TrackableObject([], [SerializedTensor("VARIABLE_VALUE", name, name)]) for name in attributes[::-1]]
        nodes += [TrackableObject([Child(10, "_kernel")]),
                  TrackableObject([], [SerializedTensor("VARIABLE_VALUE", "k", "k")])]  # fmt: skip
        source = {name: ArrayTensor(np.full(2, place, "f4")) for place, name in enumerate([*attributes, "k"])}
        target = {f"layers/mine/norm/vars/{place}": ArrayTensor(np.zeros(2, "f4")) for place in range(4)}
        target["layers/dense/vars/0"] = ArrayTensor(np.zeros(2, "f4"))
        found = assign(self.tree, locate_saved(self.tree, target),
                       locate_objects(self.tree, TrackableObjectGraph(nodes), source), target, source)  # fmt: skip
        require_fitting(found, target, source, path="x")
        assert [found.pairs[f"layers/mine/norm/vars/{place}"] for place in range(4)] == attributes
        assert found.notes == ["m/norm was taken for a layer of Keras's own, since its variables are "
                               "gamma, beta, moving_mean, moving_variance"]  # fmt: skip

    def test_a_layout_from_the_configuration_needs_every_value(self):
        tree = keras_tree(sequential(layer("Dense")), 3)
        values = locate_legacy(tree, {"dense": ["dense/kernel"]}, ["dense/kernel", "y"], 3)
        with pytest.raises(RestoreError) as caught:
            by_slot(saved_names(tree)[0], values, "x")
        assert caught.value.missing == ("layers/dense/vars/1",)
        assert caught.value.unused == ("y",)
