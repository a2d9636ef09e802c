"""Calls, branches and loops that tempt inlining and freezing to lie: the result computes the same, or is refused."""

import numpy as np
import pytest

from graphs import constant, handle, node, placeholder, read, variable
from tfthaw.conversion.converting import convert
from tfthaw.dtypes import DType
from tfthaw.errors import UnsupportedError
from tfthaw.export.delivery import Delivery
from tfthaw.export.graphs import write_graph
from tfthaw.export.weights import write_checkpoint
from tfthaw.formats.wire import Contents
from tfthaw.ir.arguments import Argument
from tfthaw.ir.attrs import AttrList, FunctionName
from tfthaw.ir.functions import Function
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.model import Model
from tfthaw.serde.graphs import graph_to_proto
from tfthaw.tensors import ArrayTensor

pytestmark = pytest.mark.tf

TYPES = {"f": DType.float32, "r": DType.resource, "b": DType.bool, "i": DType.int32}
VALUES = {"v": np.float32(5), "w": np.float32(7), "old": np.float32(4)}


def function(name, takes, gives, nodes, returns, *controls):
    """Return a function; `x` is a float32, `h:r` a resource."""
    arguments, results = (
        [Argument(item.partition(":")[0], TYPES[item.partition(":")[2] or "f"]) for item in text.split()]
        for text in (takes, gives)
    )
    waited = {control: control for control in controls}
    return Function(name, arguments, results, nodes, returns, control_returns=waited, is_stateful=True)


def types(text):
    return AttrList("type", [TYPES[letter] for letter in text])


def call(name, f, *inputs, takes="f", gives="f"):
    listed = {"Tin": types(takes), "Tout": types(gives)}
    return node(name, "StatefulPartitionedCall", *inputs, T=None, f=FunctionName(f), **listed)


def choose(name, *inputs, takes="f", gives="f"):
    return node(name, "If", *inputs, T=None, Tcond=DType.bool, Tin=types(takes), Tout=types(gives),
                then_branch=FunctionName("then"), else_branch=FunctionName("other"))  # fmt: skip


def loop(name, *inputs, carries):
    return node(name, "While", *inputs, T=types(carries), cond=FunctionName("again"), body=FunctionName("step"))


def assign(name, variable, value, *controls):
    return node(name, "AssignVariableOp", variable, value, *controls, T=None, dtype=DType.float32)


def waiting(found, *controls):
    """Return a node that waits for others."""
    found.inputs += controls
    return found


X, V, W = placeholder("x", ()), handle("v"), handle("w")
NEGATE = function("negate", "x", "y", [node("n", "Neg", "x")], {"y": "n:y:0"})
SAME = function("same", "h:r", "g:r", [], {"g": "h"})
WRITE = function("write", "h:r x", "", [assign("a", "h", "x")], {}, "a")
READ = function("read", "h:r", "y", [read("n", "h")], {"y": "n:value:0"})
LATE = function("late", "h:r x", "y", [read("n", "h"), assign("a", "h", "x", "^n")], {"y": "n:value:0"}, "a")
SECOND = function("second", "unused x", "y", [node("n", "Neg", "x")], {"y": "n:y:0"})
CONSTANT = function("constant", "x", "y", [constant("n", 42.0)], {"y": "n:output:0"})
ALARM = function("alarm", "x", "y", [
    constant("no", False), constant("why", 1.0),
    node("a", "Assert", "no:output:0", "why:output:0", T=types("f")), node("n", "Neg", "x"),
], {"y": "n:y:0"}, "a")  # fmt: skip
POSITIVE = [constant("zero", 0.0), node("q", "Less", "zero", "x")]
SWITCH = [*POSITIVE, node("s", "Switch", "x", "q")]
MERGED = [node("e", "Square", "s"), node("m", "Merge", "t", "e", N=2), node("y", "Identity", "m")]
AGAIN = function("again", "i h:r", "more:b", [constant("k", 3.0), node("l", "Less", "i", "k:output:0")],
                 {"more": "l:z:0"})  # fmt: skip


def branch(name, argument):
    nodes = [read("n", argument), node("z", "AddV2", "n:value:0", "x")]
    return function(name, "a:r b:r x", "y", nodes, {"y": "z:z:0"})


def step(gives, *nodes):
    return function("step", "i h:r", "j g:r", [read("r", "h"), node("n", "AddV2", "i", "r:value:0"), *nodes],
                    {"j": "n:z:0", "g": gives}, *(item.name for item in nodes))  # fmt: skip


FIT = {
    "a call": [X, call("y", "negate", "x")],
    "names that are taken": [
        X, constant("c", 1.0), node("c/n", "AddV2", "x", "c"), constant("y0_1", 9.0), call("y0", "negate", "x"),
        call("d", "negate", "c/n"), node("d/m", "Neg", "d"), node("y", "AddN", "c/n", "y0", "y0_1", "d/m", N=4),
    ],
    "twice": [X, call("a", "negate", "x"), call("b", "negate", "a"), node("y", "Sub", "a", "b")],
    "a handle that comes back": [X, V, call("a", "same", "v", takes="r", gives="r"), read("y", "a")],
    "a write that nobody needs": [
        X, V, call("w", "write", "v", "x", takes="rf", gives=""), call("y", "read", "v", takes="r")],
    "branches that read different variables": [
        X, V, W, *POSITIVE, choose("y", "q", "v", "w", "x", takes="rrf"), branch("then", "a"), branch("other", "b")],
    "branches that give different variables": [
        X, V, W, *POSITIVE, choose("h", "q", "v", "w", takes="rr", gives="r"), read("y", "h"),
        function("then", "a:r b:r", "y:r", [], {"y": "a"}), function("other", "a:r b:r", "y:r", [], {"y": "b"})],
    "a loop that reads": [X, V, loop("y", "x", "v", carries="fr"), AGAIN, step("h")],
    "a loop whose handle is read after it": [
        X, V, loop("l", "x", "v", carries="fr"), read("r", "l:1"), node("y", "AddV2", "r", "l"), AGAIN, step("h")],
    "two loops of other variables": [
        X, V, W, loop("a", "x", "v", carries="fr"), loop("b", "x", "w", carries="fr"), node("y", "Sub", "a", "b"),
        AGAIN, step("h")],
    "a loop that swaps variables": [
        X, V, W, loop("y", "x", "v", "w", carries="frr"),
        function("again", "i a:r b:r", "more:b", [constant("k", 30.0), node("l", "Less", "i", "k:output:0")],
                 {"more": "l:z:0"}),
        function("step", "i a:r b:r", "j c:r d:r", [read("r", "a"), node("n", "AddV2", "i", "r:value:0")],
                 {"j": "n:z:0", "c": "b", "d": "a"})],
    "a constant in a branch of TensorFlow 1": [X, *SWITCH, call("t", "constant", "s:1"), *MERGED],
    "a constant of a dead argument": [
        X, *SWITCH, call("t", "second", "s:1", "x", takes="ff"), *MERGED],
    "a call that waits for a pivot": [
        X, *SWITCH, node("p", "Identity", "s:1"), call("t", "negate", "x", "^p"), *MERGED],
    "a reference": [X, variable("old"), call("y", "negate", "old")],
}  # fmt: skip
REFUSED = {
    "a write before a read": [X, V, call("a", "write", "v", "x", takes="rf", gives=""), read("y", "v"),
                              ("y", "^a")],
    "a write before a call that reads": [
        X, V, call("a", "write", "v", "x", takes="rf", gives=""), call("y", "read", "v", "^a", takes="r")],
    "a read before a write that the output waits for": [X, V, call("y", "late", "v", "x", takes="rf")],
    "a write that nobody lists": [
        X, V, call("a", "silent", "v", "x", takes="rf", gives=""), read("y", "v"), ("y", "^a"),
        function("silent", "h:r x", "", [assign("a", "h", "x")], {})],
    "a handle of the same name": [X, V, handle("other", shared_name="v"), assign("a", "other", "x"), read("y", "v"),
                                  ("y", "^a")],
    "a write before a pure call before a read": [
        X, V, assign("a", "v", "x"), call("c", "negate", "x", "^a"), read("y", "v"), ("y", "^c")],
    "a write before an argument that nobody uses": [
        X, V, assign("a", "v", "x"), node("k", "Neg", "x", "^a"), call("c", "second", "k", "x", takes="ff"),
        read("y", "v"), ("y", "^c")],
    "a write before a handle that comes back": [
        X, V, assign("a", "v", "x"), call("i", "same", "v", "^a", takes="r", gives="r"), read("y", "i")],
    "a reference that was written": [
        X, variable("old"), node("a", "Assign", "old", "x", validate_shape=True, use_locking=True),
        call("y", "negate", "old", "^a")],
    "a write in a loop": [
        X, V, loop("l", "x", "v", carries="fr"), read("y", "v"), ("y", "^l"), AGAIN,
        step("h", assign("a", "h", "n:z:0"))],
    "a write in a branch": [
        X, V, *POSITIVE, choose("c", "q", "v", "x", takes="rf"), read("y", "v"), ("y", "^c"),
        function("then", "h:r x", "y", [assign("a", "h", "x"), node("n", "Identity", "x", "^a")],
                 {"y": "n:output:0"}, "a"),
        function("other", "h:r x", "y", [], {"y": "x"})],
}  # fmt: skip
LIBRARY = (NEGATE, SAME, WRITE, READ, LATE, SECOND, CONSTANT, ALARM)


def graph_of(items):
    """Return the graph of nodes, functions, and pairs of a node's name and what it waits for besides."""
    late = dict(item for item in items if isinstance(item, tuple))
    nodes = [item for item in items if not isinstance(item, (tuple, Function))]
    nodes = [
        waiting(node(item.name, item.op, *item.inputs, T=None, **item.attrs), late[item.name])
        if item.name in late else item for item in nodes
    ]  # fmt: skip
    own = [item for item in items if isinstance(item, Function)]
    return Graph(nodes, [*own, *LIBRARY], versions=Versions(1482, 12), library_opaque=b"")


def run(tf, message, x):
    """Run a GraphDef with its variables set, without the rewriting that could hide or add faults."""
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = -1
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as session:
        tf.import_graph_def(message, name="")
        for operation in graph.get_operations():
            if operation.type == "VarHandleOp":
                value = VALUES[operation.get_attr("shared_name").decode()]
                session.run(tf.raw_ops.AssignVariableOp(resource=operation.outputs[0], value=value))
            elif operation.type == "VariableV2":
                session.run(tf.raw_ops.Assign(ref=operation.outputs[0], value=VALUES[operation.name]))
        has_input = any(operation.name == "x" for operation in graph.get_operations())
        return session.run("y:0", {"x:0": x} if has_input else {})


@pytest.fixture
def freeze(tf, tmp_path):
    """Return a function that freezes a graph and gives the source and the result as GraphDefs."""

    def freeze(items):
        graph = graph_of(items)
        write_graph(Model(graph), tmp_path / "graph.pb", Delivery())
        write_checkpoint({name: ArrayTensor(np.asarray(value)) for name, value in VALUES.items()},
                         tmp_path / "model.ckpt", Delivery())  # fmt: skip
        convert(tmp_path / "graph.pb", tmp_path / "frozen.pb", to="frozen-graph", outputs=["y"], verify="weights",
                checkpoint=str(tmp_path / "model.ckpt"))  # fmt: skip
        cls = tf.compat.v1.GraphDef
        source = cls.FromString(graph_to_proto(graph, Contents()).SerializeToString())
        return source, cls.FromString((tmp_path / "frozen.pb").read_bytes())

    return freeze


@pytest.mark.parametrize("items", FIT.values(), ids=FIT)
def test_what_is_frozen_computes_the_same(tf, freeze, items):
    source, frozen = freeze(items)
    for x in (np.float32(3), np.float32(-2)):
        assert run(tf, frozen, x) == run(tf, source, x)
    left = [item.op for item in [*frozen.node, *(each for f in frozen.library.function for each in f.node_def)]]
    assert not {"VarHandleOp", "VariableV2", "ReadVariableOp"} & set(left)


@pytest.mark.parametrize("items", REFUSED.values(), ids=REFUSED)
def test_what_depends_on_a_write_is_refused(freeze, items):
    with pytest.raises(UnsupportedError, match="writes"):
        freeze(items)


def test_a_check_in_a_branch_that_is_not_taken_stays_silent(tf, freeze):
    source, frozen = freeze([X, *SWITCH, call("t", "alarm", "s:1"), *MERGED])
    assert run(tf, source, np.float32(-2)) == run(tf, frozen, np.float32(-2)) == 4
    with pytest.raises(tf.errors.InvalidArgumentError, match="assertion failed"):
        run(tf, frozen, np.float32(3))
