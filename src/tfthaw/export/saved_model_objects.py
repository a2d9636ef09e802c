"""The object graph of a SavedModel that is written TF2 style, and that of its checkpoint.

    root
    ├ dense ─ kernel, bias             each variable where its name says (`tfthaw.ir.variable_tree`)
    ├ hash_table                       each table, with the functions that create, fill and destroy it
    ├ variables, trainable_variables   lists of all of them
    ├ asset_paths                      the list of the assets
    ├ signatures                       key -> concrete function
    ├ _default_save_signature          what TensorFlow exports when it saves the loaded object again
    └ __call__                         what calling the loaded object does

Source: save.py, load.py and revived_types.py of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Versions
from tfthaw.ir.object_graph import (
    VALUE_KEY,
    AssetObject,
    Child,
    ConcreteFunction,
    ConcreteFunctionObject,
    FunctionObject,
    FunctionSpec,
    ObjectGraph,
    ObjectKind,
    ResourceObject,
    SavedObject,
    SerializedTensor,
    TrackableObject,
    TrackableObjectGraph,
    UserObject,
    VariableObject,
)
from tfthaw.ir.object_tree import escaped
from tfthaw.ir.signatures import DEFAULT_SIGNATURE
from tfthaw.ir.structured_values import NamedTuple, StructuredValue, TensorSpec
from tfthaw.ir.variable_tree import Place, places

ROOT_ATTRIBUTES = ("variables", "trainable_variables", "asset_paths", "signatures")

_USER_OBJECT, _LIST, _SIGNATURES = "_generic_user_object", "trackable_list_wrapper", "signature_map"
_DEFAULT_SAVE_SIGNATURE = "_default_save_signature"


@dataclass(frozen=True, slots=True)
class NewVariable:
    """A variable of the model to be written.

    Attributes:
        node: Its node in the main graph, by which functions capture it.
        name: Its name, which says where it is in the object graph.
        dtype: Its element type.
        shape: Its shape.
        trainable: Whether an optimizer may change it.
    """

    node: str
    name: str
    dtype: DType
    shape: Shape
    trainable: bool


@dataclass(frozen=True, slots=True)
class NewTable:
    """A table of the model to be written; the functions go by their names in the library.

    Attributes:
        node: Its node in the main graph, by which functions capture it.
        create: The function that gives a new handle.
        fill: The function that fills it.
        destroy: The function that does what must be done when it is no longer used.
    """

    node: str
    create: str
    fill: str
    destroy: str


@dataclass(frozen=True, slots=True)
class NewFunction:
    """A concrete function of the model to be written.

    Attributes:
        name: Its name in the library.
        captures: The nodes that it captures, in the order of its last arguments.
        takes: argument name -> what it is; in the order of the arguments.
        gives: result name -> what it is, or the spec of its only result.
        is_call: Whether calling the loaded object runs it. An only argument may come without its name then.
    """

    name: str
    captures: Sequence[str]
    takes: Mapping[str, TensorSpec] = field(default_factory=dict)
    gives: Mapping[str, TensorSpec] | TensorSpec = field(default_factory=dict)
    is_call: bool = False

    @property
    def signature(self) -> StructuredValue:
        """What its arguments are in Python: positional ones and those that go by their names."""
        if self.is_call and len(self.takes) == 1:
            return (tuple(self.takes.values()), {})
        return ((), dict(self.takes))


@dataclass(frozen=True, slots=True)
class NewObjects:
    """What is to be in an object graph.

    Attributes:
        variables: The variables.
        tables: The tables.
        assets: The nodes of the assets, in the order of the MetaGraph's list.
        functions: Every concrete function.
        signatures: key -> the function's name in the library.
        gradients: Functions that compute custom gradients: what is known of each, and the nodes that it captures.
    """

    variables: Sequence[NewVariable] = ()
    tables: Sequence[NewTable] = ()
    assets: Sequence[str] = ()
    functions: Sequence[NewFunction] = ()
    signatures: Mapping[str, str] = field(default_factory=dict)
    gradients: Mapping[str, tuple[ConcreteFunction, Sequence[str]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuiltObjects:
    """What was built.

    Attributes:
        graph: The object graph of the SavedModel.
        stored: The object graph of its checkpoint.
        keys: variable's node -> its checkpoint key.
        variables: variable's node -> the variable.
    """

    graph: ObjectGraph
    stored: TrackableObjectGraph
    keys: dict[str, str]
    variables: dict[str, NewVariable]


def build_objects(new: NewObjects) -> BuiltObjects:
    """Build the object graphs of a model."""
    building = _Building()
    names = [variable.name for variable in new.variables] + [table.node for table in new.tables]
    spots = places(names, ROOT_ATTRIBUTES)
    keys: dict[str, str] = {}
    for variable, place in zip(new.variables, spots, strict=False):
        kind = VariableObject(variable.dtype, variable.shape, variable.trainable, variable.name)
        building.captured[variable.node] = building.add_at(place, kind)
        keys[variable.node] = "/".join(map(escaped, place)) + VALUE_KEY
    for table, place in zip(new.tables, spots[len(new.variables) :], strict=True):
        building.captured[table.node] = building.add_at(place, ResourceObject())
    numbers = [building.captured[variable.node] for variable in new.variables]
    building.add_list("variables", numbers)
    trainable = [number for number, item in zip(numbers, new.variables, strict=True) if item.trainable]
    building.add_list("trainable_variables", trainable)
    if new.assets:
        for position, node in enumerate(new.assets):
            building.captured[node] = building.add(AssetObject(position))
        building.add_list("asset_paths", [building.captured[node] for node in new.assets])
    for table in new.tables:
        owner = building.captured[table.node]
        for name, function in (("_create_resource", table.create), ("_initialize", table.fill),
                               ("_destroy_resource", table.destroy)):  # fmt: skip
            building.add(FunctionObject([function], _spec(())), owner, name)
    building.add_signatures(new)
    for called in new.functions:
        if called.is_call:
            building.add(FunctionObject([called.name], _call_spec(list(called.takes))), 0, "__call__")
    known = {variable.node: variable for variable in new.variables}
    return BuiltObjects(building.object_graph(new), building.stored(new.variables, keys), keys, known)


class _Building:
    """An object graph that is being built.

    Attributes:
        objects: The objects so far; the root is at 0.
        captured: node of the main graph -> its object.
    """

    def __init__(self) -> None:
        self.objects: list[SavedObject] = []
        self.children: list[list[Child]] = []
        self.captured: dict[str, int] = {}
        self._folders: dict[Place, int] = {(): self.add(_user(_USER_OBJECT))}

    def add(self, kind: ObjectKind, parent: int | None = None, name: str = "") -> int:
        """Add an object, as an attribute of another one where one is given, and return its number."""
        number = len(self.objects)
        self.children.append([])
        self.objects.append(SavedObject(kind, self.children[number]))
        if parent is not None:
            self.children[parent].append(Child(number, name))
        return number

    def add_at(self, place: Place, kind: ObjectKind) -> int:
        """Add an object at its place, with the objects that are between it and the root."""
        for length in range(1, len(place)):
            if place[:length] not in self._folders:
                parent = self._folders[place[: length - 1]]
                self._folders[place[:length]] = self.add(_user(_USER_OBJECT), parent, place[length - 1])
        return self.add(kind, self._folders[place[:-1]], place[-1])

    def add_list(self, name: str, items: Sequence[int]) -> None:
        """Add a list of objects as an attribute of the root."""
        number = self.add(_user(_LIST), 0, name)
        self.children[number] += [Child(item, str(position)) for position, item in enumerate(items)]

    def add_signatures(self, new: NewObjects) -> None:
        """Add the signatures, and what is to be exported when the loaded object is saved again."""
        functions = {function.name: function for function in new.functions}
        signatures = self.add(_user(_SIGNATURES), 0, "signatures")
        numbers = {}
        for key, name in new.signatures.items():
            keywords = list(functions[name].takes)
            kind = ConcreteFunctionObject(name, keywords, 1 if len(keywords) == 1 else 0)
            numbers[key] = self.add(kind, signatures, key)
        default = DEFAULT_SIGNATURE if DEFAULT_SIGNATURE in numbers else next(iter(numbers), None)
        if default is not None:
            self.children[0].append(Child(numbers[default], _DEFAULT_SAVE_SIGNATURE))

    def object_graph(self, new: NewObjects) -> ObjectGraph:
        """Return the object graph with what it says of functions."""
        described = {
            name: replace(function, bound_inputs=[self.captured[node] for node in captures])
            for name, (function, captures) in new.gradients.items()
        }
        described |= {
            function.name: ConcreteFunction(
                bound_inputs=[self.captured[node] for node in function.captures],
                canonicalized_input_signature=function.signature,
                output_signature=function.gives if isinstance(function.gives, TensorSpec) else dict(function.gives),
            )
            for function in new.functions
        }
        return ObjectGraph(self.objects, described)

    def stored(self, variables: Sequence[NewVariable], keys: Mapping[str, str]) -> TrackableObjectGraph:
        """Return the object graph of the checkpoint: the same objects, with the keys of the values."""
        nodes = [TrackableObject(children) for children in self.children]
        for variable in variables:
            value = SerializedTensor("VARIABLE_VALUE", variable.name, keys[variable.node])
            nodes[self.captured[variable.node]] = TrackableObject(attributes=[value])
        return TrackableObjectGraph(nodes)


def _user(identifier: str) -> UserObject:
    return UserObject(identifier, Versions(producer=1, min_consumer=1))


def _spec(
    input_signature: StructuredValue, args: Sequence[str] = (), kwonlyargs: Sequence[str] = ()
) -> FunctionSpec:
    """Return how a Python function of those arguments is called."""
    items: list[tuple[str, StructuredValue]] = [
        ("args", [*args]), ("varargs", None), ("varkw", None), ("defaults", None), ("kwonlyargs", [*kwonlyargs]),
        ("kwonlydefaults", None), ("annotations", {}),
    ]  # fmt: skip
    return FunctionSpec(NamedTuple("FullArgSpec", [*items]), False, input_signature)


def _call_spec(names: Sequence[str]) -> FunctionSpec:
    """Return how the loaded object is called: an only argument by position or name, several by their names."""
    return _spec(None, names) if len(names) == 1 else _spec(None, (), names)
