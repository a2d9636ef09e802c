"""Decoding a batch of images in the graph: what comes out is what TensorFlow's own decoder gives."""

import numpy as np
import pytest

from graphs import graph, placeholder
from tfthaw.drop_ins.inference_proof import png_image
from tfthaw.dtypes import DType
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.ir.model import Model
from tfthaw.ir.validation import require_consistent
from tfthaw.passes.decode_images import decode_images, parse_examples

IMAGES = np.random.default_rng(3).integers(0, 256, (3, 13, 17, 3)).astype(np.uint8)


def _graph():
    parse, encoded = parse_examples("tf_example", "parse_examples")
    decode, images = decode_images(encoded.as_input(), "decode_images")
    return graph(placeholder("tf_example", (None,), DType.string), *parse, *decode), encoded, images


def test_the_nodes_are_a_consistent_graph():
    found, _, images = _graph()
    require_consistent(found)
    assert str(images) == "decode_images/stack/TensorArrayGatherV3:0"
    assert {node.name.split("/")[0] for node in found.nodes} == {"tf_example", "parse_examples", "decode_images"}


@pytest.fixture
def runner(tf, tmp_path):
    """Run the graph: fed tensor, values -> images."""
    found, encoded, images = _graph()
    write_graph(Model(graph=found), tmp_path / "decode.pb", Delivery())
    message = tf.compat.v1.GraphDef.FromString((tmp_path / "decode.pb").read_bytes())

    def run(name, values):
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            tf.import_graph_def(message, name="")
            return session.run(str(images), {name or str(encoded): values})

    return run


@pytest.mark.tf
@pytest.mark.parametrize("kind", ["png", "jpeg", "gray"])
def test_what_is_decoded_is_what_tensorflow_decodes(tf, runner, kind):
    encode = tf.io.encode_jpeg if kind == "jpeg" else tf.io.encode_png
    encoded = [encode(image[..., :1] if kind == "gray" else image).numpy() for image in IMAGES]
    expected = np.stack([tf.io.decode_image(item, channels=3).numpy() for item in encoded])
    found = runner(None, encoded)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    if kind == "png":
        np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.tf
def test_examples(tf, runner):
    def example(**features):
        values = {name.replace("_", "/"): tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
                  for name, value in features.items()}  # fmt: skip
        return tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString()

    whole = [example(image_encoded=png_image(image), image_format=b"png") for image in IMAGES]
    np.testing.assert_array_equal(runner("tf_example:0", whole), IMAGES)
    assert runner("tf_example:0", whole[:1]).shape == (1, 13, 17, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="image/encoded"):
        runner("tf_example:0", [example(image_format=b"png")])


@pytest.mark.tf
def test_images_of_two_sizes_are_no_batch(tf, runner):
    with pytest.raises(tf.errors.InvalidArgumentError):
        runner(None, [png_image(IMAGES[0]), png_image(IMAGES[1][:5])])


@pytest.mark.tf
def test_our_png_is_what_tensorflow_reads(tf):
    np.testing.assert_array_equal(tf.io.decode_png(png_image(IMAGES[0])).numpy(), IMAGES[0])
