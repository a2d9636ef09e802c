"""What a target is, what is exported of it by default, and what its traced graph looks like."""

import dataclasses
import itertools

import numpy as np
import pytest

from tfthaw.errors import NotFoundError, UnsupportedError, UsageError
from tfthaw.ir.input_specs import parse_inputs
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.trace import trace
from tfthaw.tensors import ArrayTensor

pytestmark = pytest.mark.tf

X = "x:float32[?,4]"


@pytest.fixture
def traced(tf, tmp_path):
    """Trace a target and return the live model with its MetaGraph."""
    opened, numbers = [], itertools.count()

    def run(target, *, inputs=(), **wanted):
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        live = trace(target, Request(inputs=parse_inputs(inputs), code="code", **wanted), folder)
        opened.append(live)
        return live, tf.compat.v1.MetaGraphDef.FromString(live.traced.path.read_bytes())

    yield run
    for live in opened:
        live.close()


@pytest.fixture(scope="module")
def spec(tf):
    return tf.TensorSpec((None, 4), tf.float32, name="x")


@pytest.fixture(scope="module")
def net(tf, spec):
    """The class of a module with two functions, a plain method and a property that must not be asked."""

    class Net(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 2)), name="w")

        @tf.function(input_signature=[spec])
        def encode(self, x):
            return {"code": x @ self.w}

        @tf.function(input_signature=[spec])
        def score(self, x):
            return tf.reduce_sum(x @ self.w, 1), x

        def plain(self, x):
            return x @ self.w

        @property
        def dangerous(self):
            raise AssertionError("a property was asked")

    return Net


def signatures(message):
    return {
        key: (sorted(entry.inputs), sorted(entry.outputs)) for key, entry in sorted(message.signature_def.items())
    }


def test_every_function_with_a_signature_is_exported(traced, net):
    live, message = traced(net)
    assert signatures(message) == {"encode": (["x"], ["code"]), "score": (["x"], ["output_0", "output_1"])}
    assert any("encode, score" in note for note in live.traced.notes)


def test_the_user_chooses_functions_and_their_names(traced, net):
    chosen = {"serving_default": "encode", "again": "encode", "plain": "plain"}
    _, message = traced(net(), inputs=[X], signatures=chosen)
    assert signatures(message) == {
        "serving_default": (["x"], ["code"]), "again": (["x"], ["code"]), "plain": (["x"], ["output_0"]),
    }  # fmt: skip
    assert [node.name for node in message.graph_def.node if node.op == "VarHandleOp"] == ["w"]


def test_a_function_beside_the_model(tf, traced, net, spec):
    def given(model, x: spec):
        return {"doubled": model.plain(x) * 2.0}

    def making(model):
        return tf.function(lambda x: model.plain(x), input_signature=[spec])

    own = tf.function(lambda x: x * 3.0, input_signature=[spec])
    functions = {"m:given": given, "m:making": making, "m:own": own}
    _, message = traced(net, signatures={"a": "m:given", "b": "m:making", "c": "m:own"}, functions=functions)
    assert signatures(message) == {"a": (["x"], ["doubled"]), "b": (["x"], ["output_0"]), "c": (["x"], ["output_0"])}
    with pytest.raises(UsageError, match="takes the model and gives a int"):
        traced(net, signatures={"a": "m:wrong"}, functions={"m:wrong": lambda model: 3})


@pytest.mark.parametrize(
    "how", ["call", "only method", "dataclass", "instance", "dict", "function", "lambda", "lonely"]
)
def test_what_is_the_default(tf, traced, net, spec, how):
    class Called(net):
        @tf.function(input_signature=[spec])
        def __call__(self, x):
            return {"called": self.plain(x)}

    class One(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 2)))

        @tf.function(input_signature=[spec])
        def only(self, x):
            return {"called": x @ self.w}

    @dataclasses.dataclass
    class Holder:
        net: object

        def __call__(self, x):
            return {"called": self.net.plain(x)}

    class Plain:
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 2)))

        @tf.function(input_signature=[spec])
        def __call__(self, x):
            return {"called": x @ self.w}

    kept, called = net(), Called()
    target, inputs = {
        "call": (Called, ()), "only method": (One, ()), "dataclass": (lambda: Holder(net()), [X]),
        "instance": (Plain(), ()), "dict": ({"serving_default": called.__call__, "model": called}, ()),
        "function": (tf.function(lambda x: {"called": kept.plain(x)}), [X]),
        "lambda": (lambda x: {"called": kept.plain(x)}, [X]), "lonely": (lambda x: {"called": x}, [X]),
    }[how]  # fmt: skip
    live, message = traced(target, inputs=inputs)
    assert signatures(message) == {"serving_default": (["x"], ["called"])}
    assert len(live.traced.objects.variables()) == (0 if how == "lonely" else 1)


def test_a_builder_with_arguments_and_things_that_are_no_model(traced, net):
    with pytest.raises(UsageError, match="needs arguments: size"):
        traced(lambda size: net())
    with pytest.raises(NotFoundError, match="encode"):
        traced(net, signatures={"a": "encod"})
    with pytest.raises(UsageError, match="without functions or models"):
        traced(lambda: {"model": 3})


def test_a_function_that_gives_nothing(tf, traced, spec):
    with pytest.raises(UsageError, match="gives no tensor"):
        traced(tf.function(lambda x: None, input_signature=[spec]))


def test_node_names_do_not_collide(tf, traced, spec):
    class Colliding(tf.Module):
        def __init__(self):
            self.x = tf.Variable(tf.ones((4, 4)), name="x")
            self.first, self.second = (tf.Variable(tf.ones((4, 4)), name="w") for _ in range(2))
            self.MatMul = tf.Variable(tf.ones((4, 4)), name="MatMul")

        @tf.function(input_signature=[spec])
        def one(self, x):
            return {"MatMul": x @ self.x @ self.first, "w": x @ self.second}

        @tf.function(input_signature=[spec])
        def x_(self, x):
            return {"x": x @ self.MatMul}

    live, message = traced(Colliding, signatures={"x": "one", "MatMul": "x_", "one": "one"})
    names = [node.name for node in message.graph_def.node]
    assert len(names) == len(set(names))
    nodes = {node.name for node in message.graph_def.node if node.op == "VarHandleOp"}
    assert nodes == {variable.node for variable in live.traced.objects.variables()}
    assert len(nodes) == 4
    assert {"first", "second"} <= nodes  # two are called w: each goes by its path
    with tf.Graph().as_default():
        tf.graph_util.import_graph_def(message.graph_def, name="")


def test_nothing_of_an_initialiser_is_in_the_graph(traced, net):
    _, message = traced(net)
    ops = {node.op for node in message.graph_def.node}
    assert not [op for op in ops if "Assign" in op or "Random" in op]


def test_a_live_model_runs_with_given_values_and_keeps_its_own(tf, traced, net):
    module = net()
    live, message = traced(module, signatures={"serving_default": "encode"})
    entry = message.signature_def["serving_default"]
    x, w = np.ones((1, 4), np.float32), np.arange(8, dtype=np.float32).reshape(4, 2)
    fed, wanted = {entry.inputs["x"].name: x}, [entry.outputs["code"].name]
    found = live.run(fed, wanted, {"w": ArrayTensor(w)})
    np.testing.assert_allclose(found[wanted[0]], x @ w)
    np.testing.assert_array_equal(module.w.numpy(), np.ones((4, 2)))
    with pytest.raises(UsageError, match="nothing is fed"):
        live.run({}, wanted, {"w": ArrayTensor(w)})


def test_two_runs_of_a_function_that_counts_do_not_count_in_the_model(tf, traced, spec):
    class Counting(tf.Module):
        def __init__(self):
            self.count = tf.Variable(0.0, trainable=False, name="count")

        @tf.function(input_signature=[spec])
        def __call__(self, x):
            self.count.assign_add(1.0)
            return {"y": x + self.count}

    module = Counting()
    live, message = traced(module)
    entry = message.signature_def["serving_default"]
    x = np.zeros((1, 4), np.float32)
    for _ in range(2):
        found = live.run({entry.inputs["x"].name: x}, [entry.outputs["y"].name], {"count": ArrayTensor(np.float32(5))})
        np.testing.assert_array_equal(found[entry.outputs["y"].name], x + 6)
    assert module.count.numpy() == 0.0


def test_an_empty_table_says_what_is_missing(tf, traced):
    layer = tf.keras.layers.StringLookup()
    words = tf.TensorSpec((None,), tf.string, name="k")
    with pytest.raises(UnsupportedError, match="adapted"):
        traced(tf.function(lambda k: layer(k), input_signature=[words]))


def test_names_that_differ_by_case_alone_and_names_of_ours(tf, traced, spec):
    class Cases(tf.Module):
        def __init__(self):
            self.one, self.other = (tf.Variable(tf.ones((4, 4)), name=name) for name in ("W", "w"))
            self.third = tf.Variable(tf.ones((4, 4)), name="X")
            self.constant = tf.constant([1.0, 2.0, 3.0, 4.0])

        @tf.function(input_signature=[spec])
        def __call__(self, x):
            captured = tf.identity(x @ self.one @ self.other @ self.third, name="captured")
            return {"y": captured * self.constant}

    live, message = traced(Cases, signatures={"a": "__call__", "strange key!": "__call__", "_hidden": "__call__"})
    nodes = {node.name for node in message.graph_def.node if node.op == "VarHandleOp"}
    assert nodes == {"W", "w", "X"} == {variable.node for variable in live.traced.objects.variables()}
    entry = message.signature_def["strange key!"]
    values = {name: ArrayTensor(np.eye(4, dtype=np.float32)) for name in nodes}
    found = live.run({entry.inputs["x"].name: np.ones((1, 4), np.float32)}, [entry.outputs["y"].name], values)
    np.testing.assert_array_equal(found[entry.outputs["y"].name], [[1.0, 2.0, 3.0, 4.0]])


def test_inputs_that_would_change_nothing_are_refused(tf, traced, net):
    same = traced(net, inputs=[X], signatures={"serving_default": "encode"})[1]
    assert signatures(same) == {"serving_default": (["x"], ["code"])}
    for wrong in ("x:float32[?,5]", "y:float32[?,4]", "x:int32[?,4]"):
        with pytest.raises(UsageError, match=r"says itself what it takes \(x:float32\[\?,4\]\).*leave --input out"):
            traced(net, inputs=[wrong], signatures={"serving_default": "encode"})


def test_inputs_are_never_exchanged(tf, traced):
    w = tf.Variable(tf.ones((4, 4)))

    def attend(query, key):
        return {"y": query @ w + 2 * key}

    for order in (["query", "key"], ["key", "query"]):
        _, message = traced(attend, inputs=[f"{name}:float32[?,4]" for name in order])
        assert {name: item.name for name, item in message.signature_def["serving_default"].inputs.items()} == {
            "query": "query:0", "key": "key:0"
        }  # fmt: skip
    with pytest.raises(UsageError, match=r"takes query, key; declared are keys, query; .* each by its name"):
        traced(attend, inputs=["keys:float32[?,4]", "query:float32[?,4]"])


def test_a_graph_that_is_there_is_taken_as_it_is(tf, traced):
    with tf.Graph().as_default() as graph:
        x = tf.compat.v1.placeholder(tf.float32, (None, 4), "x")
        y = tf.identity(x @ tf.compat.v1.get_variable("w", (4, 2)), "y")
        graph.finalize()
        for target in ((x, y), {"y": y}, ([x], {"y": y})):
            live, message = traced(target)
            assert signatures(message) == {"serving_default": (["x"], ["y"])}
            assert live.run({"x:0": np.ones((1, 4), "f")}, ["y:0"], {"w": ArrayTensor(np.ones((4, 2), "f"))})
