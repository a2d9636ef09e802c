"""What is taken from the metadata of Keras, whatever they are."""

import pytest

from tfthaw.ir.keras_layers import keras_layer


def test_a_layer():
    layer = keras_layer(3, "_tf_keras_layer", {"name": "d", "class_name": "Dense", "config": {"units": 2}})
    assert (layer.node, layer.identifier, layer.class_name, layer.name) == (3, "_tf_keras_layer", "Dense", "d")
    assert layer.config == {"units": 2}


def test_a_name_may_stand_in_the_configuration():
    assert keras_layer(0, "", {"config": {"name": "d"}}).name == "d"


@pytest.mark.parametrize("metadata", [{}, {"name": 1, "class_name": [], "config": "x"}, {"config": {"name": 5}}])
def test_what_is_of_another_type_is_left_out(metadata):
    layer = keras_layer(0, "", metadata)
    assert layer.name is None
    assert layer.class_name is None
