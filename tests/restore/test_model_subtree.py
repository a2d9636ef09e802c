"""A model out of a checkpoint of objects."""

import numpy as np

from tfthaw.ir.object_graph import Child, SerializedTensor, SlotVariable, TrackableObject, TrackableObjectGraph
from tfthaw.restore.model_subtree import model_subtree
from tfthaw.tensors import ArrayTensor

END = "/.ATTRIBUTES/VARIABLE_VALUE"


def value(key):
    """Return a variable."""
    return TrackableObject(attributes=[SerializedTensor("VARIABLE_VALUE", key, key + END)])


def stored():
    """Return root(model(kernel, optimizer, itself), optimizer(iterations, slots), save_counter), and its values."""
    nodes = [
        TrackableObject([Child(1, "model"), Child(3, "optimizer"), Child(6, "save_counter")]),
        TrackableObject([Child(2, "kernel"), Child(3, "optimizer"), Child(1, "again"), Child(99, "lost")]),
        value("model/kernel"),
        TrackableObject([Child(4, "iterations")], slot_variables=[SlotVariable(2, "m", 5)]),
        value("optimizer/iterations"),
        value("model/kernel/.OPTIMIZER_SLOT/optimizer/m"),
        value("save_counter"),
    ]
    keys = [item.checkpoint_key for node in nodes for item in node.attributes]
    return TrackableObjectGraph(nodes), {key: ArrayTensor(np.zeros(2, np.float32)) for key in keys}


def test_the_model_and_the_counter_are_kept():
    graph, values = stored()
    found = model_subtree(graph, values, None)
    assert list(found.tensors) == ["model/kernel" + END, "save_counter" + END]
    assert found.dropped == 2
    root, model, kernel, counter = found.graph.nodes
    assert root.children == [Child(1, "model"), Child(3, "save_counter")]
    assert model.children == [Child(2, "kernel"), Child(1, "again")]
    assert kernel.attributes[0].checkpoint_key == "model/kernel" + END
    assert counter.attributes[0].checkpoint_key == "save_counter" + END
    assert not any(node.slot_variables for node in found.graph.nodes)


def test_a_model_at_another_place_becomes_the_model():
    graph, values = stored()
    graph.nodes[0] = TrackableObject([Child(1, "net")])
    found = model_subtree(graph, values, "net")
    assert found.graph.nodes[0].children == [Child(1, "model")]
    assert list(found.tensors) == ["model/kernel" + END]


def test_a_checkpoint_that_is_the_model():
    graph, values = stored()
    whole = model_subtree(graph, values, "nowhere/at/all")
    assert whole.graph.nodes[0].children[0] == Child(1, "model")
    assert {"model/kernel" + END, "save_counter" + END} == set(whole.tensors)


def test_a_root_that_is_the_model_and_has_a_model():
    graph, values = stored()
    graph.nodes[0] = TrackableObject([Child(1, "model"), Child(4, "bias"), Child(6, "save_counter")])
    whole = model_subtree(graph, values, "")
    assert set(whole.tensors) == {"model/kernel" + END, "save_counter" + END}
    assert whole.graph.nodes[0].children == [Child(1, "model")]
    assert [child.name for child in whole.graph.nodes[1].children] == ["model", "bias", "save_counter"]


def test_values_that_are_not_there_are_not_named():
    graph, values = stored()
    del values["model/kernel" + END]
    found = model_subtree(graph, values, "model")
    assert not any(entry.checkpoint_key.startswith("model/") for node in found.graph.nodes for entry in node.attributes)
