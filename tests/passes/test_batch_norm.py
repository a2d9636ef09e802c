"""What counts as batch normalisation in training mode."""

from graphs import constant, graph, node, placeholder, variable
from tfthaw.passes.batch_norm import training_mode_nodes


def normalised(*scale):
    """Return a graph whose node `norm` takes `scale`, which the given nodes make."""
    return graph(
        placeholder("x"), *scale, constant("offset", [0.0]), constant("empty", []),
        node("norm", "FusedBatchNormV3", "x", "scale", "offset", "empty", "empty", is_training=True),
    )  # fmt: skip


def test_a_scale_that_is_a_variable_or_a_constant_is_that_of_a_batch_norm():
    learned = normalised(variable("gamma", [1]), node("scale", "Identity", "gamma"))

    assert training_mode_nodes(learned) == ["norm"]
    assert training_mode_nodes(normalised(constant("scale", [1.0]))) == ["norm"]


def test_a_scale_as_long_as_the_batch_is_that_of_a_layer_norm():
    made = normalised(node("shape", "Shape", "x"), constant("one", 1.0), node("scale", "Fill", "shape", "one"))

    assert training_mode_nodes(made) == []


def test_a_variable_behind_a_shape_is_still_a_batch_norm():
    stretched = normalised(
        variable("gamma", [1]), node("shape", "Shape", "x"), node("scale", "BroadcastTo", "gamma", "shape")
    )

    assert training_mode_nodes(stretched) == ["norm"]
