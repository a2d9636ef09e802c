"""A graph that parses examples is given one that it can parse."""

import numpy as np
import pytest

from graphs import FLOAT, constant, graph, node, placeholder
from tfthaw.dtypes import DType
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.verify.examples import serialized_example

DENSE = {"Tdense": AttrList("type", [FLOAT, DType.int64, DType.string]),
         "dense_shapes": AttrList("shape", [Shape((2,)), Shape(()), Shape((None, 2))])}  # fmt: skip


def test_dense_features_have_one_value_an_element():
    parse = node("p", "ParseSingleExample", "s", T=None,
                 dense_keys=AttrList("s", [b"f", b"i", b"t"]), **DENSE)  # fmt: skip

    found = serialized_example(graph(placeholder("s", (), DType.string), parse))
    floats = b"\x0a\x08" + b"\x00\x00\x00\x3f" * 2  # packed
    first = b"\x0a\x01f" + b"\x12\x0c" + b"\x12\x0a" + floats
    assert found is not None
    assert found[2 : 4 + len(first)] == b"\x0a" + bytes([len(first)]) + first


def test_a_graph_that_parses_nothing_needs_none():
    assert serialized_example(graph(placeholder("s", (), DType.string), node("out", "Identity", "s"))) is None


@pytest.mark.tf
@pytest.mark.parametrize("parser", ["ParseExample", "ParseExampleV2", "ParseSingleExample"])
def test_tensorflow_parses_it(parser):
    import tensorflow as tf

    keys = [b"f", b"i", b"t"]
    named = {
        "ParseExample": (["s", "n", "sparse", "f", "i", "t"], {"Nsparse": 1, "Ndense": 3}),
        "ParseExampleV2": (["s", "n", "sparse", "keys", "ragged"], {}),
        "ParseSingleExample": (["s"], {"dense_keys": AttrList("s", keys)}),
    }
    inputs, attrs = named[parser]
    constants = [constant(key.decode(), key.decode()) for key in keys]
    keys_node = constant("keys", [key.decode() for key in keys])
    given = graph(placeholder("s", (None,), DType.string), constant("sparse", "x"), *constants, keys_node,
                  node("p", parser, *inputs, T=None, **attrs, **DENSE))  # fmt: skip
    specs = {
        "f": tf.io.FixedLenFeature([2], tf.float32), "i": tf.io.FixedLenFeature([], tf.int64),
        "t": tf.io.FixedLenSequenceFeature([2], tf.string, allow_missing=True),
    }  # fmt: skip
    parsed = tf.io.parse_example([serialized_example(given)], specs)

    np.testing.assert_array_equal(parsed["f"], [[0.5, 0.5]])
    np.testing.assert_array_equal(parsed["i"], [1])
    assert parsed["t"].numpy().tolist() == [[[b"tfthaw", b"tfthaw"]]]
