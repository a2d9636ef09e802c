"""What a configuration tells of a model's variables."""

from __future__ import annotations

import pytest

from keras_configs import functional, layer, sequential
from tfthaw.errors import StructureError
from tfthaw.restore.keras_tree import has_weights, is_wholly_known, keras_tree, snake_case


def names(tree):
    """Return every variable of a tree by the names of the layers that lead to it."""
    found = [weight.name for weight in tree.weights]
    for item in tree.sublayers:
        found += [f"{item.objects[0][-1] if item.objects else item.saved[0]}/{name}" for name in names(item.layer)]
    return found


@pytest.mark.parametrize(("config", "expected"), [
    (layer("Dense"), ["kernel", "bias"]),
    (layer("Dense", use_bias=False), ["kernel"]),
    (layer("EinsumDense", bias_axes=None), ["kernel"]),
    (layer("EinsumDense", bias_axes="c"), ["kernel", "bias"]),
    (layer("Convolution2D"), ["kernel", "bias"]),
    (layer("DepthwiseConv2D"), ["kernel", "bias"]),
    (layer("SeparableConv1D", use_bias=False), ["depthwise_kernel", "pointwise_kernel"]),
    (layer("BatchNormalization"), ["gamma", "beta", "moving_mean", "moving_variance"]),
    (layer("BatchNormalization", scale=False, center=False), ["moving_mean", "moving_variance"]),
    (layer("LayerNormalization", rms_scaling=True), ["gamma"]),
    (layer("Normalization", mean=None), ["mean", "variance", "count"]),
    (layer("Normalization", mean=0.5, variance=2.0), []),
    (layer("Attention"), []),
    (layer("Attention", use_scale=True, score_mode="concat"), ["scale", "concat_score_weight"]),
    (layer("AdditiveAttention", use_scale=False), []),
    (layer("LSTM", use_bias=False), ["cell/kernel", "cell/recurrent_kernel"]),
    (layer("RNN", cell=layer("GRUCell")), ["cell/kernel", "cell/recurrent_kernel", "cell/bias"]),
    (layer("TimeDistributed", layer=layer("Dense")), ["layer/kernel", "layer/bias"]),
    (layer("Bidirectional", layer=layer("SimpleRNN", use_bias=False)),
     ["cell/kernel", "cell/recurrent_kernel", "cell/kernel", "cell/recurrent_kernel"]),
    (layer("RNN", cell=layer("StackedRNNCells", cells=[layer("LSTMCell", use_bias=False), layer("Other")])),
     ["cell/cells/lstm_cell/kernel", "cell/cells/lstm_cell/recurrent_kernel"]),
])  # fmt: skip
def test_the_variables_of_a_layer(config, expected):
    found = names(keras_tree(config, 3))
    if config["class_name"] == "Bidirectional":
        found = [name.partition("/")[2] for name in found]
    assert found == expected


def test_attention_has_its_layers_under_private_attributes():
    tree = keras_tree(layer("MultiHeadAttention"), 3)
    assert [item.saved for item in tree.sublayers][:2] == [("query_dense", "_query_dense"), ("key_dense", "_key_dense")]
    assert len(names(tree)) == 8
    assert keras_tree(layer("MultiHeadAttention"), 2).sublayers[0].saved[0] == "_query_dense"


def test_where_a_sequential_has_its_layers():
    config = sequential(layer("Dense", "a"), layer("Dropout"), layer("Dense", "b"))
    new, old = keras_tree(config, 3), keras_tree(config, 2)
    assert [item.saved[0] for item in new.sublayers] == ["layers/dense", "layers/dropout", "layers/dense_1"]
    assert new.sublayers[2].objects == (("_functional", "_operations", "3"),)
    assert [item.objects for item in old.sublayers] == [
        (("layer_with_weights-0",), ("layer-0",)), (("layer-1",),), (("layer_with_weights-1",), ("layer-2",)),
    ]  # fmt: skip


def test_a_functional_counts_its_input_and_keras_3_its_operations():
    plus = {"class_name": "NotALayer", "config": {"name": "plus"}}
    config = functional(layer("InputLayer"), plus, layer("Dense"))
    new, old = keras_tree(config, 3), keras_tree(config, 2)
    assert [item.objects[0] for item in new.sublayers] == [("_operations", "0"), ("_operations", "2")]
    assert [item.objects[-1] for item in old.sublayers] == [("layer-0",), ("layer-1",), ("layer-2",)]


def test_a_layer_of_ones_own_leaves_its_number_among_layers_with_variables_open():
    tree = keras_tree(sequential(layer("Mine"), layer("Dense")), 2)
    assert [item.objects for item in tree.sublayers] == [(("layer-0",),), (("layer-1",),)]
    assert not is_wholly_known(tree)
    assert has_weights(tree)


@pytest.mark.parametrize(("more", "known"), [
    ({"registered_name": "mine>Dense", "module": None}, False), ({"registered_name": "mine>Dense"}, False),
    ({"registered_name": None, "module": "keras.layers"}, True),
    ({"registered_name": "Dense", "module": "tf_keras"}, True),
])  # fmt: skip
def test_a_name_of_keras_may_be_a_class_of_ones_own(more, known):
    assert keras_tree({**layer("Dense"), **more}, 3).is_known is known


@pytest.mark.parametrize("config", [
    layer("BatchNormalization", renorm=True), layer("Dense", quantization_config={"mode": "int8"}),
    layer("Embedding", lora_rank=2), layer("CuDNNLSTM"), layer("mine>Dense"),
])  # fmt: skip
def test_what_the_table_does_not_tell(config):
    tree = keras_tree(config, 3)
    assert (tree.is_known, tree.weights, tree.sublayers) == (False, (), [])


def test_the_first_sequential_was_a_list():
    tree = keras_tree({"class_name": "Sequential", "config": [layer("Dense")]}, 2)
    assert [item.layer.name for item in tree.sublayers] == ["dense"]


@pytest.mark.parametrize("config", [
    {}, {"class_name": 3}, {"class_name": "Sequential"}, {"class_name": "Sequential", "config": {"layers": 4}},
    {"class_name": "Sequential", "config": {"layers": "text"}}, sequential("no layer"), layer("RNN"),
    layer("Bidirectional", layer=[]), {"class_name": "Dense", "config": None},
])  # fmt: skip
def test_a_configuration_that_is_none(config):
    with pytest.raises(StructureError):
        keras_tree(config, 3)


def test_a_configuration_without_end():
    config = layer("Dense")
    for _ in range(20_000):
        config = layer("TimeDistributed", layer=config)
    with pytest.raises(StructureError, match="deeper than 100"):
        keras_tree(config, 3)
    while config:
        config = config["config"].pop("layer", None)


@pytest.mark.parametrize(("class_name", "expected"), [
    ("BatchNormalization", "batch_normalization"), ("PReLU", "p_re_lu"), ("LSTM", "lstm"), ("Conv2D", "conv2d"),
    ("RNN", "rnn"), ("mine>MyLayer", "my_layer"), ("Conv2DTranspose", "conv2d_transpose"),
])  # fmt: skip
def test_the_names_that_keras_makes_of_classes(class_name, expected):
    assert snake_case(class_name) == expected
