"""From traced functions to one graph: the functions side by side, with the variables, tables and constants they use.

The result is a graph as TensorFlow 1 has them: placeholders, `VarHandleOp`s without values, and the ops of the
functions under the name scopes that they were traced in. No initialiser is in it.

What a function captures is a tensor from outside: the handle of a variable, the handle of a table, the path of an
asset, or any other tensor of eager mode, which is a constant of the model.

Source: func_graph.py, saved_model/save.py and trackable/resource.py of TensorFlow.
"""

from __future__ import annotations

import gc
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfthaw.errors import UnsupportedError, UsageError
from tfthaw.runtime.endpoints import Endpoint

_NUMBERED = re.compile(r"(.+)_[0-9]+")
_OUTPUT = re.compile(r"Identity(_[0-9]+)?")


@dataclass(slots=True)
class BuiltGraph:
    """A graph that was put together from functions.

    Attributes:
        graph: The `tf.Graph`.
        signatures: key -> (inputs, outputs), each a tensor of the graph by name.
        assets: The tensor that holds an asset's path -> the file.
    """

    graph: Any
    signatures: dict[str, tuple[dict[str, Any], dict[str, Any]]] = field(default_factory=dict)
    assets: dict[str, str] = field(default_factory=dict)


def build_graph(
    tf: Any, endpoints: Sequence[Endpoint], variables: Mapping[int, str], *, code: str, doubled_scopes: bool = False
) -> BuiltGraph:
    """Put traced functions into one graph.

    Args:
        tf: TensorFlow.
        endpoints: The functions. The first one keeps its names; the nodes of others are under their key.
        variables: id of a captured `tf.Variable` -> the name of its node.
        code: What the code is called in messages.
        doubled_scopes: Whether each layer opened its name scope twice, as in Keras 3: all scopes end in a number then.

    Raises:
        UnsupportedError: A function captures what no graph can hold; with each of them.
    """
    built = BuiltGraph(tf.Graph())
    builder = _Builder(tf, built, variables, code)
    with built.graph.as_default():
        builder.reserve(variables.values())
        for number, endpoint in enumerate(endpoints):
            definition = _Renamed(endpoint.concrete.graph.as_graph_def(), doubled_scopes, endpoint.outputs,
                                  set(variables.values()))  # fmt: skip
            if number == 0:
                builder.reserve(node.name for node in definition.message.node)
            builder.add_endpoint(endpoint, definition, builder.scope(endpoint.key) if number else "")
    return built


def captured_variables(endpoints: Iterable[Endpoint]) -> list[Any]:
    """Return the variables whose handles functions capture, each once, in the order of the captures.

    Raises:
        UsageError: One of them is gone.
    """
    found: dict[int, Any] = {}
    for endpoint in endpoints:
        try:
            handles = {id(variable.handle): variable for variable in endpoint.concrete.graph.variables}
        except AssertionError as error:
            raise UsageError(
                f"{endpoint.key} was traced with variables that are gone since",
                hint="call the function for the first time when all of its variables are there, and keep them in "
                "attributes of the model",
            ) from error
        for outside in endpoint.concrete.graph.external_captures:
            variable = handles.get(id(outside))
            if variable is not None:
                found.setdefault(id(variable), variable)
    return list(found.values())


def captured_constants(tf: Any, endpoints: Iterable[Endpoint]) -> list[Any]:
    """Return the floating tensors of eager mode that functions capture, each once."""
    found: dict[int, Any] = {}
    for endpoint in endpoints:
        for outside in endpoint.concrete.graph.external_captures:
            if hasattr(outside, "numpy") and (outside.dtype.is_floating or outside.dtype.is_complex):
                found.setdefault(id(outside), outside)
    return list(found.values())


class _Builder:
    """Adds functions to a graph, and what they capture before them."""

    def __init__(self, tf: Any, built: BuiltGraph, variables: Mapping[int, str], code: str) -> None:
        self.tf = tf
        self.built = built
        self.names = variables
        self.code = code
        self.known: dict[int, Any] = {}  # captured tensor -> its tensor in the graph
        self.alive: list[Any] = []  # what `known` has the ids of
        self.problems: list[str] = []

    def reserve(self, names: Iterable[str]) -> None:
        """Keep names of nodes that come later for these."""
        for name in names:
            self.built.graph.unique_name(name)

    def scope(self, key: str) -> str:
        """Return a scope for the function of a signature that nothing else is in."""
        name = re.sub("[^A-Za-z0-9_.-]", "_", key)
        return str(self.built.graph.unique_name(name if re.match("[A-Za-z0-9.]", name) else f"f{name}", False))

    def add_endpoint(self, endpoint: Endpoint, definition: _Renamed, scope: str) -> None:
        """Add a traced function; its inputs stay placeholders."""
        concrete = endpoint.concrete
        placed = self._import(concrete, definition, scope)
        self.built.signatures[endpoint.key] = (
            {name: placed(tensor) for name, tensor in endpoint.inputs.items()},
            {name: placed(tensor) for name, tensor in endpoint.outputs.items()},
        )

    def _import(self, concrete: Any, definition: _Renamed, scope: str) -> Any:
        """Import the graph of a function and return how its tensors are found."""
        graph = concrete.graph
        if getattr(graph, "deferred_external_captures", None):
            self.problems.append("a value that is computed anew at each call is captured")
        handles = {id(variable.handle): variable for variable in graph.variables}
        inputs, gone = {}, set()
        for outside, inside in zip(graph.external_captures, graph.internal_captures, strict=True):
            inputs[definition.tensor(inside.name)] = self._captured(outside, handles)
            gone.add(inside.op.name)
        self._raise()
        message = definition.message
        kept = [node for node, old in zip(message.node, definition.names, strict=True) if old not in gone]
        taken = type(message)(library=message.library, versions=message.versions)
        taken.node.extend(kept)
        self.tf.graph_util.import_graph_def(taken, input_map=inputs, name=scope)
        prefix = f"{scope}/" if scope else ""

        def placed(tensor: Any) -> Any:
            name = definition.tensor(tensor.name)
            if name in inputs:  # what is captured is given back as it is
                return inputs[name]
            return self.built.graph.get_tensor_by_name(prefix + name)

        return placed

    def _captured(self, outside: Any, handles: Mapping[int, Any]) -> Any:
        """Return the tensor of the graph that stands for one from outside."""
        if id(outside) not in self.known:
            self.known[id(outside)] = self._made(outside, handles)
            self.alive.append(outside)
        return self.known[id(outside)]

    def _made(self, outside: Any, handles: Mapping[int, Any]) -> Any:
        tf = self.tf
        variable = handles.get(id(outside))
        if variable is not None:
            name = self.names[id(variable)]
            return tf.raw_ops.VarHandleOp(
                dtype=variable.dtype, shape=variable.shape, shared_name=name, container="", name=f"{name}/"
            )  # with a slash behind it the name is taken as it is; TensorFlow tells `W` and `w` apart by numbers
        if outside.dtype == tf.resource:
            return self._resource(outside)
        if outside.dtype == tf.variant or not hasattr(outside, "numpy"):
            self.problems.append(f"a {outside.dtype.name} tensor {outside.shape} is captured")
            return tf.constant(0)
        asset = _owner(outside, "Asset", "_path")
        constant = tf.constant(outside.numpy(), dtype=outside.dtype, name="asset_path" if asset else "captured")
        if asset is not None:
            self.built.assets[constant.name] = outside.numpy().decode()
            self.built.graph.add_to_collection("asset_filepaths", constant)
        return constant

    def _resource(self, outside: Any) -> Any:
        """Return the handle of a table or another resource: made in the graph, with what fills it."""
        tf = self.tf
        owner = getattr(outside, "_parent_trackable", lambda: None)()
        owner = owner if owner is not None else _owner(outside, "CapturableResource", "_resource_handle_value")
        if owner is None or not hasattr(owner, "_create_resource"):
            self.problems.append(f"a resource is captured that nothing can make anew ({outside.shape})")
            return tf.constant(0)
        name = re.sub("[^A-Za-z0-9_.-]", "_", type(owner).__name__)
        if name.startswith(("Mutable", "DenseHash")):
            self.problems.append(f"{type(owner).__name__}: what it holds is in no checkpoint that a graph restores")
            return tf.constant(0)
        scope = self.built.graph.unique_name(name)
        handle = self._part(owner._create_resource, f"{scope}/create")
        self.known[id(outside)] = handle
        self.alive.append(outside)

        def initialize() -> None:
            owner._initialize()

        done = self._part(initialize, f"{scope}/initialize")
        if done is not None:
            self.built.graph.add_to_collection(tf.compat.v1.GraphKeys.TABLE_INITIALIZERS, done)
        elif isinstance(owner, tf.lookup.StaticHashTable):
            self.problems.append(
                f"{scope} is empty; what a layer was adapted to is in no checkpoint: give it its vocabulary "
                "(vocabulary=...)"
            )
        return handle

    def _part(self, function: Any, scope: str) -> Any:
        """Add a function without arguments and return its tensor, or the operation that carries it out."""
        tf = self.tf
        with tf.init_scope():
            concrete = tf.function(function, autograph=False).get_concrete_function()
        definition = _Renamed(concrete.graph.as_graph_def())
        placed = self._import(concrete, definition, scope)
        if concrete.outputs:
            return placed(concrete.outputs[0])
        waited = [self.built.graph.get_operation_by_name(f"{scope}/{definition.node(operation.name)}")
                  for operation in concrete.graph.control_outputs]  # fmt: skip
        return tf.group(*waited, name=f"{scope}/done") if waited else None

    def _raise(self) -> None:
        if self.problems:
            raise UnsupportedError(
                "the traced functions need what no graph can hold", problems=list(dict.fromkeys(self.problems)),
                path=self.code, hint="build it inside of the model, or give it as an argument",
            )  # fmt: skip


def _owner(tensor: Any, class_name: str, attribute: str) -> Any:
    """Return the object of a class that holds a tensor in an attribute, or None: a capture does not say whose it is."""
    for candidate in gc.get_referrers(tensor):
        if not isinstance(candidate, dict) or candidate.get(attribute) is not tensor:
            continue
        for owner in gc.get_referrers(candidate):
            if getattr(owner, "__dict__", None) is candidate and _is_a(owner, class_name):
                return owner
    return next(
        (item for item in gc.get_objects() if _is_a(item, class_name) and vars(item).get(attribute) is tensor), None
    )


def _is_a(value: Any, class_name: str) -> bool:
    return any(
        kind.__name__ == class_name and kind.__module__.startswith("tensorflow.") for kind in type(value).__mro__
    )


class _Renamed:
    """The GraphDef of a function with nodes that have other names.

    Scopes are called as the layers are, and what only passes an output on is called as the output.

    Attributes:
        message: The GraphDef.
        names: The names that its nodes had before, in order.
    """

    def __init__(
        self, message: Any, doubled_scopes: bool = False, outputs: Mapping[str, Any] | None = None,
        others: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.message = message
        self.names = [node.name for node in message.node]
        self._renames: dict[str, str] = {}
        if doubled_scopes:
            self._renames = _single_scopes(self.names)
        nodes = {*(self.node(name) for name in self.names), *others}
        taken = {"/".join(parts[:end]) for name in nodes for parts in [name.split("/")]
                 for end in range(1, len(parts) + 1)}  # fmt: skip
        for key, tensor in (outputs or {}).items():
            name = re.sub("[^A-Za-z0-9_.-]", "_", key)
            is_passed_on = tensor.op.type == "Identity" and _OUTPUT.fullmatch(tensor.op.name)
            if is_passed_on and name not in taken and re.match("[A-Za-z0-9.]", name):
                self._renames[tensor.op.name] = name
                taken.add(name)
        if len({self.node(name) for name in self.names}) < len(self.names):
            self._renames = {}
        for node in message.node:
            node.name = self.node(node.name)
            node.input[:] = [f"^{self.node(text[1:])}" if text[:1] == "^" else self.tensor(text) for text in node.input]
            # it says beside which node another one is placed: captured handles, which are variables of the graph now
            node.attr.pop("_class", None)

    def node(self, name: str) -> str:
        """Return what a node is called now."""
        return self._renames.get(name, name)

    def tensor(self, name: str) -> str:
        """Return what a tensor (`node:0`) is called now."""
        node, colon, output = name.partition(":")
        return f"{self.node(node)}{colon}{output}"


def _single_scopes(names: Sequence[str]) -> dict[str, str]:
    """Return new names for nodes in scopes that were opened twice, each without the number that came of that."""
    scopes: dict[str, str] = {"": ""}
    taken = set(names)
    for name in names:
        parent = ""
        parts = name.split("/")[:-1]
        for position, part in enumerate(parts):
            path = "/".join(parts[: position + 1])
            if path not in scopes:
                match = _NUMBERED.fullmatch(part)
                plain, base = (f"{scopes[parent]}/{text}".lstrip("/") for text in (part, match[1] if match else part))
                scopes[path] = base if base not in taken else plain
                taken.add(scopes[path])
            parent = path
    return {
        name: f"{scopes[scope]}/{leaf}"
        for name in names
        for scope, slash, leaf in [name.rpartition("/")]
        if slash and scopes[scope] != scope
    }
