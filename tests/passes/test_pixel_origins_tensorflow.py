"""What input pipelines of TensorFlow do to pixels, traced back through all that they are made of."""

import warnings

import numpy as np
import pytest

from graphs import library, node
from tfthaw.ir.attrs import FunctionName
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.pixel_origins import pixel_changes
from tfthaw.serde.graphs import graph_from_proto
from v1_sessions import v1_control_flow

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


class Pipelines:
    """Input pipelines of images, and of what is made of them on their way."""

    def __init__(self, tf):
        self.tf = tf
        self.v1 = tf.compat.v1
        self.slices = tf.data.Dataset.from_tensor_slices

    def next_of(self, dataset, one_shot=False):
        make = self.v1.data.make_one_shot_iterator if one_shot else self.v1.data.make_initializable_iterator
        return make(dataset).get_next()

    def mapped(self, function, **options):
        """Return what builds a pipeline that maps its images."""
        return lambda: self.next_of(self.slices(IMAGES).map(function).repeat().batch(2).prefetch(1), **options)

    def floats(self, image):
        return self.tf.cast(image, self.tf.float32)

    def decoded(self, image):
        image = self.floats(self.tf.image.decode_jpeg(self.tf.io.encode_jpeg(image), channels=3))
        image = self.tf.image.random_flip_left_right(image)
        image = self.tf.image.resize_with_pad(self.v1.random_crop(image, [4, 4, 3]), 8, 8)
        return self.tf.clip_by_value(image, 0.0, 255.0)

    def with_boxes(self, image):
        boxes = self.tf.random.uniform([5, 4])
        return self.floats(image), (boxes * 2.0 - 1.0) / 3.0

    def channels(self, image):
        red, green, blue = self.tf.split(self.floats(image), 3, axis=2)
        return self.tf.concat([blue, green, red], 2)

    def by_numpy(self, image):
        scaled = self.v1.py_func(lambda value: value / np.float32(255), [self.floats(image)], self.tf.float32)
        return self.tf.ensure_shape(scaled, [8, 8, 3])

    def of_choice(self, image):
        values = self.floats(image)
        return self.tf.cond(self.tf.reduce_sum(values) > 1.0, lambda: values - 3.0, lambda: values)

    def generated(self, dtype):
        return self.next_of(self.tf.data.Dataset.from_generator(lambda: iter(IMAGES), dtype, [8, 8, 3]).batch(2))

    def interleaved(self):
        return self.next_of(self.slices(IMAGES).interleave(lambda image: self.slices(image[None]).map(self.floats), 2))

    def zipped(self):
        numbers = self.slices(np.ones(4)).map(self.tf.math.log)
        return self.next_of(self.tf.data.Dataset.zip((self.slices(IMAGES), numbers)))[0]

    def raw_floats(self):
        raw = self.slices([b"x" * 768]).map(lambda data: self.tf.io.decode_raw(data, self.tf.float32))
        return self.next_of(raw.map(lambda values: self.tf.reshape(values, [8, 8, 3])).batch(1))

    def queued(self, change):
        """Return what builds a queue of an image and a number."""

        def build():
            queue = self.tf.queue.FIFOQueue(4, [self.tf.float32, self.tf.float32], [[8, 8, 3], []])
            filled = queue.enqueue([change(self.floats(self.tf.constant(IMAGES[0]))), self.tf.constant(2.0) * 3.0])
            self.v1.train.add_queue_runner(self.v1.train.QueueRunner(queue, [filled]))
            return self.v1.train.batch([queue.dequeue()[0]], 2)

        return build

    def of_two_bytes(self, image):
        return self.floats(self.tf.io.decode_png(self.tf.io.encode_png(image), dtype=self.tf.uint16))

    def at_times(self, change):
        """Return what builds a queue that takes an image where a condition holds."""

        def build():
            image = change(self.floats(self.tf.constant(IMAGES[0])))
            with warnings.catch_warnings(), v1_control_flow(self.tf):
                warnings.simplefilter("ignore")
                return self.v1.train.maybe_batch([image], self.tf.random.uniform([]) > 0.5, 2)

        return build

    def staged(self, change):
        def build():
            from tensorflow.python.ops import data_flow_ops

            area = data_flow_ops.StagingArea([self.tf.float32], [[2, 8, 8, 3]])
            area.put([change(self.floats(self.mapped(lambda image: image)()))])
            return area.get()[0]

        return build

    def from_handle(self):
        handle = self.v1.placeholder(self.tf.string, [])
        return self.v1.data.Iterator.from_string_handle(handle, self.tf.float32, [None, 8, 8, 3]).get_next()

    def multiplied(self, image):
        return self.tf.reshape(self.tf.matmul(self.tf.reshape(image, [-1, 3]), np.eye(3, dtype="f4")), [8, 8, 3])


def assert_changes(changes, pipelines):
    """Hold name -> (what builds a pipeline, the changes that it makes) to what is found."""
    found = {name: changes(build) for name, (build, _) in pipelines.items()}
    assert found == {name: expected for name, (_, expected) in pipelines.items()}


def test_pipelines_that_keep_pixels_as_they_are(tf, changes):
    made = Pipelines(tf)
    kept = {
        "decoded": made.mapped(made.decoded),
        "of one shot": made.mapped(made.decoded, one_shot=True),
        "integers": made.mapped(lambda image: image),
        "integers of a generator": lambda: made.generated(tf.uint8),
        "boxes": lambda: made.mapped(made.with_boxes)()[0],
        "zipped": made.zipped,
        "interleaved": made.interleaved,
        "a queue": made.queued(lambda image: image),
        "staged": made.staged(lambda image: image),
        "a queue that is filled at times": made.at_times(lambda image: image),
        "bounded": made.mapped(lambda image: tf.minimum(255.0, tf.maximum(0.0, made.floats(image)))),
        "upside down": made.mapped(lambda image: made.floats(image)[::-1, ::-1]),
        "batched by hand": made.mapped(lambda image: tf.stack([made.floats(image), made.floats(image)])),
    }
    assert_changes(changes, {name: (build, []) for name, build in kept.items()})


def test_pipelines_that_change_pixels(tf, changes):
    made = Pipelines(tf)
    floats = made.floats
    assert_changes(changes, {
        "scaled": (made.mapped(lambda image: floats(image) / 255.0), ["RealDiv"]),
        "scaled in one shot": (made.mapped(lambda image: floats(image) / 255.0, one_shot=True), ["RealDiv"]),
        "converted": (made.mapped(lambda image: tf.image.convert_image_dtype(image, tf.float32)), ["Mul"]),
        "logarithms": (made.mapped(lambda image: tf.math.log1p(floats(image))), ["Log1p"]),
        "channels reversed": (made.mapped(lambda image: floats(image[..., ::-1])), ["StridedSlice"]),
        "channels in another order": (
            made.mapped(lambda image: tf.stack([floats(image)[..., place] for place in (2, 1, 0)], -1)), ["Pack"],
        ),
        "channels taken apart": (
            made.mapped(lambda image: tf.stack(tf.unstack(floats(image), axis=-1)[::-1], -1)), ["Pack"],
        ),
        "scaled in a queue that is filled at times": (made.at_times(lambda image: image * 0.5), ["Mul"]),
        "wider": (made.mapped(made.of_two_bytes), ["DecodePng"]),
        "yes or no": (made.mapped(lambda image: floats(tf.cast(image, tf.bool))), ["Cast"]),
        "channels changed": (made.mapped(made.channels), ["ConcatV2"]),
        "clipped": (made.mapped(lambda image: tf.minimum(floats(image), 1.0)), ["Minimum"]),
        "transposed": (made.mapped(lambda image: tf.transpose(floats(image), [1, 0, 2])), ["Transpose"]),
        "in a choice": (made.mapped(made.of_choice), ["Sub"]),
        "numpy": (made.mapped(made.by_numpy), ["PyFunc"]),
        "a scaled queue": (made.queued(lambda image: image / 127.5 - 1.0), ["Sub"]),
        "scaled and staged": (made.staged(lambda image: image / 255.0), ["RealDiv"]),
        "a product of matrices": (made.queued(made.multiplied), ["MatMul"]),
    })


def test_floats_that_nothing_is_known_of(tf, changes):
    made = Pipelines(tf)
    assert_changes(changes, {
        "of a generator": (lambda: made.generated(tf.float32), ["GeneratorDataset"]),
        "slices": (lambda: made.next_of(made.slices(np.float32(IMAGES) / 255).batch(2)), ["Const"]),
        "of a handle": (made.from_handle, ["IteratorGetNext"]),
        "raw": (made.raw_floats, ["DecodeRaw"]),
    })


def test_functions_that_are_not_there():
    """A damaged graph says nothing of what happens to pixels, and that is told."""
    nodes = [
        node("set", "MapDataset", T=None, f=FunctionName("gone")), node("iterator", "IteratorV2", T=None),
        node("make", "MakeIterator", "set", "iterator", T=None), node("batch", "IteratorGetNext", "iterator", T=None),
        node("slices", "TensorSliceDataset", "batch", T=None),
    ]  # fmt: skip
    nodes[0].inputs.append("slices")
    found = library(nodes)
    changes = pixel_changes(found, GraphIndex(found.nodes), TensorName("batch", 0))
    assert changes == ["a function that cannot be looked into"]
