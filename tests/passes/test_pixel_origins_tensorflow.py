"""What input pipelines of TensorFlow do to pixels, traced back through all that they are made of."""

import numpy as np
import pytest

from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.pixel_origins import pixel_changes
from tfthaw.serde.graphs import graph_from_proto

IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.fixture
def changes(tf):
    """Return what builds a graph, and gives the changes in front of what its function returns."""
    from tfthaw import proto

    def run(build):
        with tf.Graph().as_default() as graph:
            tensor = build()
        message = proto.GraphDef.FromString(graph.as_graph_def().SerializeToString())
        found = graph_from_proto(message)
        return pixel_changes(found, GraphIndex(found.nodes), TensorName.parse(tensor.name))

    return run


def next_of(tf, dataset, one_shot=False):
    v1 = tf.compat.v1
    make = v1.data.make_one_shot_iterator if one_shot else v1.data.make_initializable_iterator
    return make(dataset).get_next()


@pytest.fixture
def pipelines(tf):
    """Return name -> what builds a pipeline, and the changes that it makes."""
    v1, data = tf.compat.v1, tf.data.Dataset.from_tensor_slices

    def mapped(function, **options):
        return lambda: next_of(tf, data(IMAGES).map(function).repeat().shuffle(4).batch(2).prefetch(1), **options)

    def floats(image):
        return tf.cast(image, tf.float32)

    def decoded(image):
        image = floats(tf.image.decode_jpeg(tf.io.encode_jpeg(image), channels=3))
        image = tf.image.random_flip_left_right(image)
        image = tf.image.resize_with_pad(v1.random_crop(image, [4, 4, 3]), 8, 8)
        return tf.clip_by_value(image, 0.0, 255.0)

    def with_boxes(image):
        boxes = tf.random.uniform([5, 4])
        return floats(image), (boxes * 2.0 - 1.0) / 3.0

    def channels(image):
        red, green, blue = tf.split(floats(image), 3, axis=2)
        return tf.concat([blue, green, red], 2)

    def generated(dtype):
        return tf.data.Dataset.from_generator(lambda: iter(IMAGES), dtype, [8, 8, 3]).batch(2)

    def queued(image):
        queue = tf.queue.FIFOQueue(4, [tf.float32, tf.float32], [[8, 8, 3], []])
        v1.train.add_queue_runner(v1.train.QueueRunner(queue, [queue.enqueue([image, tf.constant(2.0) * 3.0])]))
        return v1.train.batch([queue.dequeue()[0]], 2)

    def staged(image):
        from tensorflow.python.ops import data_flow_ops

        area = data_flow_ops.StagingArea([tf.float32], [[2, 8, 8, 3]])
        area.put([image])
        return area.get()[0]

    def from_handle():
        handle = v1.placeholder(tf.string, [])
        return v1.data.Iterator.from_string_handle(handle, tf.float32, [None, 8, 8, 3]).get_next()

    numpy_scale = lambda image: tf.ensure_shape(  # noqa: E731
        v1.py_func(lambda value: value / np.float32(255), [floats(image)], tf.float32), [8, 8, 3]
    )
    return {
        "decoded": (mapped(decoded), []),
        "of one shot": (mapped(decoded, one_shot=True), []),
        "integers": (mapped(lambda image: image), []),
        "integers of a generator": (lambda: next_of(tf, generated(tf.uint8)), []),
        "boxes": (lambda: next_of(tf, data(IMAGES).map(with_boxes).batch(2))[0], []),
        "zipped": (lambda: next_of(tf, tf.data.Dataset.zip((data(IMAGES), data(np.ones(4)).map(tf.math.log))))[0], []),
        "interleaved": (
            lambda: next_of(tf, data(IMAGES).interleave(lambda image: data(image[None]).map(floats), 2)), [],
        ),
        "a queue": (lambda: queued(floats(tf.constant(IMAGES[0]))), []),
        "staged": (lambda: staged(floats(mapped(lambda image: image)())), []),
        "scaled": (mapped(lambda image: floats(image) / 255.0), ["RealDiv"]),
        "scaled in one shot": (mapped(lambda image: floats(image) / 255.0, one_shot=True), ["RealDiv"]),
        "converted": (mapped(lambda image: tf.image.convert_image_dtype(image, tf.float32)), ["Mul"]),
        "logarithms": (mapped(lambda image: tf.math.log1p(floats(image))), ["Log1p"]),
        "channels reversed": (mapped(lambda image: floats(image[..., ::-1])), ["StridedSlice"]),
        "channels changed": (mapped(channels), ["ConcatV2"]),
        "clipped": (mapped(lambda image: tf.minimum(floats(image), 1.0)), ["Minimum"]),
        "transposed": (mapped(lambda image: tf.transpose(floats(image), [1, 0, 2])), ["Transpose"]),
        "in a choice": (
            mapped(lambda image: tf.cond(tf.reduce_sum(floats(image)) > 1.0, lambda: floats(image) - 3.0,
                                         lambda: floats(image))), ["Sub"],
        ),
        "numpy": (mapped(numpy_scale), ["PyFunc"]),
        "floats of a generator": (lambda: next_of(tf, generated(tf.float32)), ["GeneratorDataset"]),
        "float slices": (lambda: next_of(tf, data(np.float32(IMAGES) / 255).batch(2)), ["Const"]),
        "a scaled queue": (lambda: queued(floats(tf.constant(IMAGES[0])) / 127.5 - 1.0), ["Sub"]),
        "scaled and staged": (lambda: staged(floats(mapped(lambda image: image)()) / 255.0), ["RealDiv"]),
        "of a handle": (from_handle, ["IteratorGetNext"]),
        "a product of matrices": (
            lambda: queued(tf.reshape(tf.matmul(floats(tf.constant(IMAGES[0].reshape(-1, 3))), np.eye(3, dtype="f4")),
                                      [8, 8, 3])), ["MatMul"],
        ),
        "raw floats": (
            lambda: next_of(tf, data([b"x" * 768]).map(lambda raw: tf.reshape(tf.io.decode_raw(raw, tf.float32),
                                                                              [8, 8, 3])).batch(1)), ["DecodeRaw"],
        ),
    }  # fmt: skip


def test_pixels_are_traced_back(pipelines, changes):
    wrong = {}
    for name, (build, expected) in pipelines.items():
        found = changes(build)
        if found != expected:
            wrong[name] = (found, expected)
    assert wrong == {}
