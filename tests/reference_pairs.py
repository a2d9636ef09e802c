"""TensorFlow 1 graphs with references, and the same with resource variables, run side by side."""

import contextlib
import warnings

import numpy as np

from tfthaw import proto
from tfthaw.formats.wire import Contents
from tfthaw.ir.graph import TensorName
from tfthaw.ir.variables import REF_VARIABLE_OPS
from tfthaw.passes.resource_variables import to_resource_variables
from tfthaw.serde.graphs import graph_from_proto, graph_to_proto
from v1_sessions import plain_config, v1_control_flow


def run_side_by_side(tf, build, rewrite):
    """Build a graph and rewrite it.

    Args:
        tf: TensorFlow.
        build: Builds the graph; called with TensorFlow.
        rewrite: A pass: takes a graph, returns what has a `graph`.

    Returns:
        A session of the graph as it was built, and one of what it became.
    """
    before, after = tf.Graph(), tf.Graph()
    before.seed = 7
    with before.as_default(), v1_control_flow(tf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build(tf)
    message = proto.GraphDef.FromString(before.as_graph_def().SerializeToString())
    rewritten = graph_to_proto(rewrite(graph_from_proto(message)).graph, Contents())
    with after.as_default():
        tf.import_graph_def(tf.compat.v1.GraphDef.FromString(proto.serialize(rewritten)), name="")
    return tuple(tf.compat.v1.Session(graph=graph, config=plain_config(tf)) for graph in (before, after))


def assert_same_bits(one, other, what):
    """Check that two fetched values are the same; an op that was only run gives None."""
    assert (one is None) == (other is None), what
    if one is not None:
        one, other = np.asarray(one), np.asarray(other)
        assert (one.dtype, one.shape, one.tolist()) == (other.dtype, other.shape, other.tolist()), what


class Pair:
    """A graph with references and its rewritten twin, in a session each, with the same values."""

    def __init__(self, tf, build, outputs=()):
        self.tf = tf
        self.variables = []

        def build_with_init(tf):
            build(tf)
            every = [*tf.compat.v1.global_variables(), *tf.compat.v1.local_variables()]
            self.variables = [item.op.name for item in every]
            self.init = tf.compat.v1.variables_initializer(every).name

        def rewrite(graph):
            self.result = to_resource_variables(graph, [TensorName.parse(name) for name in outputs])
            return self.result

        self.before, self.after = run_side_by_side(tf, build_with_init, rewrite)
        assert not {node.type for node in self.after.graph.get_operations()} & REF_VARIABLE_OPS
        self.before.run(self.init)
        self._take_over()

    def _take_over(self):
        """Give the rewritten graph's variables the values of the original's, through its own init op."""
        self.after.run(self.init)
        for name, value in self.values(self.before).items():
            assert_same_bits(value, self.values(self.after)[name], name)

    def values(self, session):
        """Return the value of every variable."""
        fetched = {}
        with session.graph.as_default():
            for name in self.variables:
                node = session.graph.get_operation_by_name(name)
                value = node.outputs[0]
                if node.type == "VarHandleOp":
                    value = self.tf.raw_ops.ReadVariableOp(resource=value, dtype=node.get_attr("dtype"))
                fetched[name] = value
        return session.run(fetched)

    def assert_same(self, outputs, *feeds, runs=3):
        """Check that outputs and variables stay bit for bit the same over several runs."""
        for feed in [feed for _ in range(runs) for feed in feeds or ({},)]:
            one, other = self.before.run(list(outputs), feed), self.after.run(list(outputs), feed)
            for name, x, y in zip(outputs, one, other, strict=True):
                assert_same_bits(x, y, name)
            left, right = self.values(self.before), self.values(self.after)
            for name in self.variables:
                assert_same_bits(left[name], right[name], name)
        return self


def variable(tf, name, shape=(), initializer=None, **options):
    initializer = initializer or tf.compat.v1.random_normal_initializer()
    return tf.compat.v1.get_variable(name, shape, initializer=initializer, use_resource=False, **options)


def feed(tf, shape=(None, 4), dtype="float32", name="x"):
    return tf.compat.v1.placeholder(dtype, shape, name=name)


def images(seed=0, shape=(3, 4)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X = {"x:0": images()}
"""What most graphs are fed."""


def reference(item):
    """Return the reference itself of a variable, as ops of TensorFlow 1 take it."""
    return item._ref()


class Fresh(contextlib.AbstractContextManager):
    """New sessions of a pair, in which no variable has a value."""

    def __init__(self, tf, pair):
        self.sessions = [
            tf.compat.v1.Session(graph=old.graph, config=plain_config(tf)) for old in (pair.before, pair.after)
        ]

    def __enter__(self):
        return self.sessions

    def __exit__(self, *exc):
        for session in self.sessions:
            session.close()
