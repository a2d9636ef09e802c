"""Graphs with libraries of functions as TensorFlow never writes them, though it reads and runs them.

Calls by name, polymorphic functions, control outputs, arguments that nobody uses or that are handed back, names that
meet: each graph comes with its variables' values and its feeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Placeholder:
    """An attr of a function's node that the caller's attr of this name gives."""

    name: str


@dataclass(frozen=True)
class Called:
    """The function that an attr names, with the attrs that it is called with."""

    name: str
    attrs: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class FunctionGraph:
    """A graph with a library.

    Attributes:
        message: The GraphDef.
        values: variable -> its value; all are resource variables of floats.
        feeds: What to feed, one run after the other.
        outputs: What to fetch.
        expected: What each run gives, where TensorFlow's Python cannot import the graph.
    """

    message: Any
    values: dict[str, Any]
    feeds: list[dict[str, Any]]
    outputs: list[str]
    expected: list[list[Any]] | None = None

    @property
    def used(self) -> list[str]:
        """The variables that a node of the main graph takes."""
        taken = {name for node in self.message.node for name in node.input}
        return [name for name in self.values if name in taken]


class Builder:
    """Builds a GraphDef with a library."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self.message = tf.compat.v1.GraphDef()
        self.message.versions.producer = 1882
        self.values: dict[str, Any] = {}

    def node(self, name: str, op: str, inputs: Sequence[str] = (), **attrs: Any) -> None:
        """Add a node to the main graph."""
        self._fill(self.message.node.add(), name, op, inputs, attrs)

    def variable(self, name: str, value: Any) -> None:
        """Add a handle to the main graph."""
        self.values[name] = np.asarray(value, np.float32)
        self.node(name, "VarHandleOp", shared_name=name, dtype=self.tf.float32, shape=self.values[name].shape)

    def constant(self, name: str, value: Any, inputs: Sequence[str] = ()) -> None:
        """Add a constant to the main graph."""
        self.node(name, "Const", inputs, value=value, dtype=value)

    def function(
        self, name: str, arguments: str, results: str, nodes: Sequence[tuple[Any, ...]], returns: Mapping[str, str],
        *, attrs: str = "", done: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Add a function.

        Args:
            name: Its name.
            arguments: `x: float, handle: resource, many: N*T, any: types`.
            results: The same.
            nodes: (name, op, inputs, attrs) each.
            returns: result -> input spelling.
            attrs: `T: type, N: int`.
            done: control output -> node.
        """
        new = self.message.library.function.add()
        new.signature.name, new.signature.is_stateful = name, True
        kinds = dict(part.split(": ") for part in attrs.split(", ") if part)
        for attr, kind in kinds.items():
            new.signature.attr.add(name=attr, type=kind)
        for text, into in ((arguments, new.signature.input_arg), (results, new.signature.output_arg)):
            for argument, kind in (part.split(": ") for part in text.split(", ") if part):
                self._argument(into.add(name=argument), kind, kinds)
        for node, op, inputs, given in nodes:
            self._fill(new.node_def.add(), node, op, inputs, given)
        new.ret.update(returns)
        new.signature.control_output.extend(done or {})
        new.control_ret.update(done or {})

    def _argument(self, argument: Any, kind: str, kinds: Mapping[str, str]) -> None:
        if "*" in kind:
            argument.number_attr, kind = kind.split("*")
        if kinds.get(kind) == "list(type)":
            argument.type_list_attr = kind
        elif kind in kinds:
            argument.type_attr = kind
        else:
            named = {"float": "float32", "double": "float64", "int": "int32"}.get(kind, kind)
            argument.type = self.tf.as_dtype(named).as_datatype_enum

    def _fill(self, node: Any, name: str, op: str, inputs: Sequence[str], attrs: Mapping[str, Any]) -> None:
        node.name, node.op = name, op
        node.input.extend(inputs)
        for key, value in attrs.items():
            self._attr(node.attr[key], key, value)

    def _attr(self, attr: Any, key: str, value: Any) -> None:
        tf = self.tf
        if isinstance(value, Placeholder):
            attr.placeholder = value.name
        elif isinstance(value, Called):
            attr.func.name = value.name
            for name, given in value.attrs.items():
                self._attr(attr.func.attr[name], name, given)
        elif key == "value":
            attr.tensor.CopyFrom(tf.make_tensor_proto(value))
        elif key == "dtype" and isinstance(value, (np.ndarray, np.generic)):
            attr.type = tf.as_dtype(value.dtype).as_datatype_enum
        elif isinstance(value, tf.DType):
            attr.type = value.as_datatype_enum
        elif key in ("shape", "output_shapes") and isinstance(value, tuple):
            attr.shape.CopyFrom(tf.TensorShape(value).as_proto())
        elif isinstance(value, bool):
            attr.b = value
        elif isinstance(value, int):
            attr.i = value
        elif isinstance(value, str):
            attr.s = value.encode()
        elif isinstance(value, list):
            attr.list.SetInParent()
            if value and isinstance(value[0], Called):
                for each in value:
                    attr.list.func.add(name=each.name)
            else:
                attr.list.type.extend(each.as_datatype_enum for each in value)
        else:
            raise TypeError(f"{key}: {value!r}")

    def graph(self, feeds: Sequence[Mapping[str, Any]], *outputs: str) -> FunctionGraph:
        """Return what was built."""
        return FunctionGraph(self.message, self.values, [dict(each) for each in feeds], list(outputs))


X = [{"x:0": np.float32([[1, 2], [3, 4], [5, -6]])}, {"x:0": np.float32([[0.5, -2]])}]
W = np.float32([10, 100])
V = np.float32([-1, 0.5])


def start(tf: Any) -> Builder:
    """Return a builder with an input of floats[?, 2] and the variables w and v."""
    build = Builder(tf)
    build.node("x", "Placeholder", dtype=tf.float32, shape=(None, 2))
    build.variable("w", W)
    build.variable("v", V)
    return build


def read(tf: Any, name: str, handle: str) -> tuple[Any, ...]:
    """Return a node that reads a variable."""
    return (name, "ReadVariableOp", [handle], {"dtype": tf.float32})


def scale(build: Builder) -> None:
    """Add `Scale(x, w) -> x * w`."""
    tf = build.tf
    nodes = [read(tf, "read", "w"), ("mul", "Mul", ["x", "read:value:0"], {"T": tf.float32})]
    build.function("Scale", "x: float, w: resource", "y: float", nodes, {"y": "mul:z:0"})


def called_by_name(tf: Any) -> FunctionGraph:
    """A node whose op is a function, in the main graph and in another function; called thrice."""
    build = start(tf)
    scale(build)
    nodes = [("one", "Scale", ["a", "w"], {}), ("two", "Scale", ["one:y:0", "v"], {})]
    build.function("Both", "a: float, w: resource, v: resource", "b: float", nodes, {"b": "two:y:0"})
    build.node("both", "Both", ["x", "w", "v"])
    build.node("again", "Scale", ["both", "w"])
    return build.graph(X, "both:0", "again:0")


def names_that_meet(tf: Any) -> FunctionGraph:
    """Nodes of the main graph that are called what the function's nodes would be."""
    build = start(tf)
    scale(build)
    build.node("call", "Scale", ["x", "w"])
    build.constant("call/mul", np.float32([7]))
    build.constant("call/read", np.float32([9]))
    build.node("call/x", "AddV2", ["call", "call/mul"], T=tf.float32)
    build.node("out", "AddV2", ["call/x", "call/read"], T=tf.float32)
    return build.graph(X, "out:0", "call:0")


def polymorphic(tf: Any) -> FunctionGraph:
    """One function for every dtype, called by name and by PartitionedCall; only TensorFlow's C++ imports these."""
    build = start(tf)
    twice = [("sum", "AddV2", ["x", "x"], {"T": Placeholder("T")})]
    build.function("Twice", "x: T", "y: T", twice, {"y": "sum:z:0"}, attrs="T: type")
    deep = [("call", "Twice", ["x"], {"T": Placeholder("T")}),
            ("cast", "Cast", ["call:y:0"], {"SrcT": Placeholder("T"), "DstT": Placeholder("To")})]  # fmt: skip
    build.function("Deep", "x: T", "y: To", deep, {"y": "cast:y:0"}, attrs="T: type, To: type")
    build.node("whole", "Cast", ["x"], SrcT=tf.float32, DstT=tf.int32)
    build.node("ints", "Twice", ["whole"], T=tf.int32)
    build.node("floats", "Twice", ["x"], T=tf.float32)
    called = Called("Deep", {"T": tf.int32, "To": tf.float64})
    build.node("doubles", "PartitionedCall", ["ints"], f=called, Tin=[tf.int32], Tout=[tf.float64])
    made = build.graph(X, "ints:0", "floats:0", "doubles:0")
    given = [feeds["x:0"] for feeds in X]
    made.expected = [[2 * x.astype(np.int32), 2 * x, 4.0 * x.astype(np.int32)] for x in given]
    return made


def lists_of_tensors(tf: Any) -> FunctionGraph:
    """An argument that is several tensors, ops with several outputs, and lists that are named as a whole."""
    build = start(tf)
    nodes = [("sum", "AddN", ["many"], {"N": Placeholder("N"), "T": tf.float32}),
             ("axis", "Const", [], {"value": np.int32(1), "dtype": tf.int32}),
             ("parts", "Split", ["axis:output:0", "sum:sum:0"], {"num_split": 2, "T": tf.float32}),
             ("shapes", "ShapeN", ["many"], {"N": Placeholder("N"), "T": tf.float32, "out_type": tf.int32}),
             ("all", "AddN", ["shapes:output"], {"N": Placeholder("N"), "T": tf.int32})]  # fmt: skip
    returns = {"right": "parts:output:1", "left": "parts:output:0", "shape": "all:sum:0", "shapes": "shapes:output"}
    results = "right: float, left: float, shape: int, shapes: N*int"
    build.function("Sums", "many: N*float", results, nodes, returns, attrs="N: int")
    build.node("sums", "Sums", ["x", "x", "x"], N=3)
    return build.graph(X, "sums:0", "sums:1", "sums:2", "sums:5")


def lists_of_types(tf: Any) -> FunctionGraph:
    """An argument that is several tensors of several dtypes; only TensorFlow's C++ imports these."""
    build = start(tf)
    nodes = [("pass", "IdentityN", ["any"], {"T": Placeholder("types")}),
             ("first", "Cast", ["any:0"], {"SrcT": tf.float16, "DstT": tf.float64})]  # fmt: skip
    returns = {"same": "pass:output", "first": "first:y:0", "second": "pass:output:1"}
    build.function("Pass", "any: types", "same: types, first: double, second: float", nodes, returns,
                   attrs="types: list(type)")  # fmt: skip
    build.node("half", "Cast", ["x"], SrcT=tf.float32, DstT=tf.float16)
    build.node("all", "Pass", ["half", "x"], types=[tf.float16, tf.float32])
    made = build.graph(X, "all:0", "all:1", "all:2", "all:3")
    halves = [(feeds["x:0"].astype(np.float16), feeds["x:0"]) for feeds in X]
    made.expected = [[half, x, half.astype(np.float64), x] for half, x in halves]
    return made


def handed_back(tf: Any) -> FunctionGraph:
    """Arguments that are results as they are, crosswise and twice, and one that nobody uses."""
    build = start(tf)
    build.constant("one", np.float32([[1, 1]]))
    returns = {"a": "second", "b": "first", "c": "first"}
    given = "first: float, second: float, unused: resource"
    build.function("Swap", given, "a: float, b: float, c: float", [], returns)
    build.node("call", "StatefulPartitionedCall", ["x", "one", "w"], f=Called("Swap"),
               Tin=[tf.float32, tf.float32, tf.resource], Tout=[tf.float32] * 3)  # fmt: skip
    build.node("out", "Sub", ["call:1", "call"], T=tf.float32)
    return build.graph(X, "out:0", "call:2")


def handed_back_handle(tf: Any) -> FunctionGraph:
    """A function that gives back the handle that it took."""
    build = start(tf)
    build.function("Handle", "x: float, h: resource", "h: resource, x: float", [], {"h": "h", "x": "x"})
    build.node("call", "StatefulPartitionedCall", ["x", "w"], f=Called("Handle"), Tin=[tf.float32, tf.resource],
               Tout=[tf.resource, tf.float32])  # fmt: skip
    build.node("read", "ReadVariableOp", ["call"], dtype=tf.float32)
    build.node("out", "Mul", ["call:1", "read"], T=tf.float32)
    return build.graph(X, "out:0")


def control_outputs(tf: Any) -> FunctionGraph:
    """Side effects that only control outputs name, a function without results, and one that waits for its argument."""
    build = start(tf)
    nodes = [read(tf, "read", "w"), ("axes", "Const", ["^x"], {"value": np.int32([0]), "dtype": tf.int32}),
             ("low", "Const", [], {"value": np.float32(5), "dtype": tf.float32}),
             ("least", "Min", ["read:value:0", "axes:output:0"], {"T": tf.float32, "Tidx": tf.int32}),
             ("fine", "Greater", ["least:output:0", "low:output:0"], {"T": tf.float32}),
             ("check", "Assert", ["fine:z:0", "read:value:0"], {"T": [tf.float32]})]  # fmt: skip
    build.function("Check", "x: float, w: resource", "", nodes, {}, done={"checked": "check"})
    wait = [("call", "Check", ["a", "h"], {}), ("out", "Identity", ["a", "^call"], {"T": tf.float32})]
    build.function("Wait", "a: float, h: resource", "b: float", wait, {"b": "out:output:0"}, done={"also": "call"})
    build.node("check", "StatefulPartitionedCall", ["x", "w"], f=Called("Check"),
               Tin=[tf.float32, tf.resource], Tout=[])  # fmt: skip
    build.node("wait", "Wait", ["x", "w", "^check"])
    build.node("out", "Identity", ["wait", "^wait"], T=tf.float32)
    return build.graph(X, "out:0")


def branches_of_ones_own(tf: Any) -> FunctionGraph:
    """If and Case whose branches name their arguments otherwise, use some of them, and are used twice."""
    build = start(tf)
    scale(build)
    add = [read(tf, "r", "handle"), ("add", "AddV2", ["value", "r:value:0"], {"T": tf.float32})]
    build.function("Shift", "value: float, handle: resource", "shifted: float", add, {"shifted": "add:z:0"})
    build.function("Keep", "a: float, b: resource", "a_out: float", [], {"a_out": "a"})
    build.constant("axes", np.int32([0, 1]))
    build.constant("zero", np.float32(0))
    build.node("total", "Sum", ["x", "axes"], T=tf.float32, Tidx=tf.int32)
    build.node("positive", "Greater", ["total", "zero"], T=tf.float32)
    build.node("which", "Cast", ["total"], SrcT=tf.float32, DstT=tf.int32)
    types = {"Tin": [tf.float32, tf.resource], "Tout": [tf.float32]}
    build.node("if", "If", ["positive", "x", "v"], Tcond=tf.bool, then_branch=Called("Scale"),
               else_branch=Called("Shift"), **types)  # fmt: skip
    build.node("same", "If", ["positive", "if", "w"], Tcond=tf.bool, then_branch=Called("Keep"),
               else_branch=Called("Keep"), **types)  # fmt: skip
    build.node("case", "Case", ["which", "same", "w"],
               branches=[Called("Shift"), Called("Keep"), Called("Scale"), Called("Shift")], **types)  # fmt: skip
    return build.graph(X, "if:0", "same:0", "case:0")


def loop_of_ones_own(tf: Any) -> FunctionGraph:
    """While whose condition and body name their arguments otherwise, and whose body calls by name."""
    build = start(tf)
    scale(build)
    cond = [("most", "Const", [], {"value": np.int32(3), "dtype": tf.int32}),
            ("less", "Less", ["step", "most:output:0"], {"T": tf.int32})]  # fmt: skip
    build.function("Less3", "step: int, h: resource, unused: float", "go_on: bool", cond, {"go_on": "less:z:0"})
    body = [("one", "Const", ["^i"], {"value": np.int32(1), "dtype": tf.int32}),
            ("next", "AddV2", ["i", "one:output:0"], {"T": tf.int32}), ("call", "Scale", ["y", "w"], {})]  # fmt: skip
    build.function("Step", "i: int, w: resource, y: float", "i_next: int, w_next: resource, y_next: float", body,
                   {"i_next": "next:z:0", "w_next": "w", "y_next": "call:y:0"})  # fmt: skip
    build.constant("begin", np.int32(0))
    build.node("while", "While", ["begin", "w", "x"], T=[tf.int32, tf.resource, tf.float32], cond=Called("Less3"),
               body=Called("Step"))  # fmt: skip
    build.node("out", "Identity", ["while:2"], T=tf.float32)
    return build.graph(X, "out:0", "while:0")


def call_in_a_v1_loop(tf: Any) -> FunctionGraph:
    """A call inside of a frame of v1: the function's constants must run in that frame too."""
    build = start(tf)
    nodes = [("two", "Const", [], {"value": np.float32(2), "dtype": tf.float32}),
             read(tf, "read", "w"), ("scaled", "Mul", ["read:value:0", "two:output:0"], {"T": tf.float32}),
             ("sum", "AddV2", ["x", "scaled:z:0"], {"T": tf.float32})]  # fmt: skip
    build.function("Add2W", "x: float, w: resource", "y: float", nodes, {"y": "sum:z:0"})
    build.constant("zero", np.int32(0))
    frame = {"frame_name": "frame", "parallel_iterations": 10}
    build.node("enter_i", "Enter", ["zero"], T=tf.int32, is_constant=False, **frame)
    build.node("enter_x", "Enter", ["x"], T=tf.float32, is_constant=False, **frame)
    build.node("enter_w", "Enter", ["w"], T=tf.resource, is_constant=True, **frame)
    build.node("i", "Merge", ["enter_i", "next_i"], T=tf.int32, N=2)
    build.node("y", "Merge", ["enter_x", "next_y"], T=tf.float32, N=2)
    build.constant("most", np.int32(3), ["^i"])
    build.node("less", "Less", ["i", "most"], T=tf.int32)
    build.node("go_on", "LoopCond", ["less"])
    build.node("switch_i", "Switch", ["i", "go_on"], T=tf.int32)
    build.node("switch_y", "Switch", ["y", "go_on"], T=tf.float32)
    build.node("stay", "Identity", ["switch_i:1"], T=tf.int32)
    build.constant("one", np.int32(1), ["^stay"])
    build.node("sum", "AddV2", ["stay", "one"], T=tf.int32)
    build.node("call", "StatefulPartitionedCall", ["switch_y:1", "enter_w"], f=Called("Add2W"),
               Tin=[tf.float32, tf.resource], Tout=[tf.float32])  # fmt: skip
    build.node("next_i", "NextIteration", ["sum"], T=tf.int32)
    build.node("next_y", "NextIteration", ["call"], T=tf.float32)
    build.node("out", "Exit", ["switch_y"], T=tf.float32)
    return build.graph(X, "out:0")


def call_in_a_v1_cond(tf: Any) -> FunctionGraph:
    """Calls on the sides of a Switch, one of them without arguments: only the side that is taken may run."""
    build = start(tf)
    seven = [("c", "Const", [], {"value": np.float32([[7, 7]]), "dtype": tf.float32})]
    build.function("Seven", "", "y: float", seven, {"y": "c:output:0"})
    scale(build)
    build.constant("axes", np.int32([0, 1]))
    build.constant("zero", np.float32(0))
    build.node("total", "Sum", ["x", "axes"], T=tf.float32, Tidx=tf.int32)
    build.node("positive", "Greater", ["total", "zero"], T=tf.float32)
    build.node("pivot", "Switch", ["positive", "positive"], T=tf.bool)
    build.node("no", "Identity", ["pivot"], T=tf.bool)
    build.node("side", "Switch", ["x", "positive"], T=tf.float32)
    build.node("seven", "PartitionedCall", ["^no"], f=Called("Seven"), Tin=[], Tout=[tf.float32])
    build.node("scaled", "Scale", ["side:1", "w"])
    build.node("out", "Merge", ["seven", "scaled"], T=tf.float32, N=2)
    return build.graph(X, "out:0", "out:1")


GRAPHS = {
    each.__name__: each
    for each in (
        called_by_name, names_that_meet, polymorphic, lists_of_tensors, lists_of_types, handed_back,
        handed_back_handle, control_outputs, branches_of_ones_own, loop_of_ones_own, call_in_a_v1_loop,
        call_in_a_v1_cond,
    )
}  # fmt: skip
