"""Object graphs: the Python objects of a TensorFlow 2 model, and which of their parts are variables and functions.

Two messages hold one: a SavedModel has a SavedObjectGraph (`ObjectGraph` here: what each object is), an object-based
checkpoint a TrackableObjectGraph (which objects have which values). In both an object is known by its position in
`nodes`, the root is at 0, and children are edges with names; cycles are legal, and an object may have many parents.

Graphs may be inconsistent: edges that lead nowhere load, so that they can be shown (`object_graph_problems` of
`tfthaw.ir.object_graph_validation` names them).

Source: saved_object_graph.proto and trackable_object_graph.proto of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

from tfthaw.dtypes import DType
from tfthaw.ir.attrs import Shape
from tfthaw.ir.graph import Versions
from tfthaw.ir.structured_values import ABSENT, Absent, StructuredValue

VALUE_KEY = "/.ATTRIBUTES/VARIABLE_VALUE"
"""What a variable's checkpoint key has after its path."""

JIT_COMPILE_DEFAULT, JIT_COMPILE_ON, JIT_COMPILE_OFF = 0, 1, 2


class Child(NamedTuple):
    """An edge of an object graph: the object at `node` is its parent's attribute `name`."""

    node: int
    name: str
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class SlotVariable:
    """A slot variable of an optimizer; the optimizer's object lists it.

    Attributes:
        original: The object of the variable that it belongs to.
        slot: Which slot, such as `m`.
        variable: The object of the slot variable itself.
        opaque: Fields that this version does not know.
    """

    original: int
    slot: str
    variable: int
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class SaveableObject:
    """How an object saves and restores a part of itself.

    Attributes:
        save_function: The object of the function that saves.
        restore_function: The object of the function that restores.
        opaque: Fields that this version does not know.
    """

    save_function: int
    restore_function: int
    opaque: bytes = b""


@dataclass(slots=True)
class FunctionSpec:
    """How a Python function is called.

    Attributes:
        fullargspec: Its arguments as Python's inspection names them: a named tuple `FullArgSpec`.
        is_method: Whether the first argument is `self`.
        input_signature: The specs that it was declared with; None where it was declared with none.
        jit_compile: 0 default, 1 on, 2 off.
        opaque: Fields that this version does not know.
    """

    fullargspec: StructuredValue | Absent = ABSENT
    is_method: bool = False
    input_signature: StructuredValue | Absent = ABSENT
    jit_compile: int = JIT_COMPILE_DEFAULT
    opaque: bytes = b""


@dataclass(slots=True)
class UserObject:
    """An object of a class of its own: a module, a list, an optimizer, the map of signatures.

    Attributes:
        identifier: Which class restores it, such as `_generic_user_object`, `trackable_list_wrapper`, `signature_map`.
        versions: The version of that class, or None where it does not say.
        metadata: What the class keeps; the JSON of a layer in models of Keras 2.4 and before.
        opaque: Fields that this version does not know.
    """

    identifier: str
    versions: Versions | None = None
    metadata: str = ""
    opaque: bytes = b""


@dataclass(slots=True)
class AssetObject:
    """A file; `index` is its position among the assets of the MetaGraph."""

    index: int = 0
    opaque: bytes = b""


@dataclass(slots=True)
class FunctionObject:
    """A `tf.function`.

    Attributes:
        concrete_functions: Its traces, by their names in the library.
        spec: How it is called, or None.
        opaque: Fields that this version does not know.
    """

    concrete_functions: list[str] = field(default_factory=list)
    spec: FunctionSpec | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class ConcreteFunctionObject:
    """One trace that is an object by itself, such as a signature (SavedBareConcreteFunction).

    Attributes:
        name: The function in the library.
        argument_keywords: The names of its arguments, in order.
        allowed_positional_arguments: How many of them may come without name.
        spec: How it is called, or None.
        opaque: Fields that this version does not know.
    """

    name: str
    argument_keywords: list[str] = field(default_factory=list)
    allowed_positional_arguments: int = 0
    spec: FunctionSpec | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class VariableObject:
    """A variable.

    Attributes:
        dtype: Its element type.
        shape: Its shape, or None where the message has none.
        trainable: Whether an optimizer may change it.
        name: Its name in Python, such as `dense/kernel`; objects of equal name are legal.
        device: Where it is kept.
        synchronization: How replicas read it (VariableSynchronization); 0 by itself.
        aggregation: How replicas write it (VariableAggregation); 0 not at all.
        components: The parts of a distributed variable.
        opaque: Fields that this version does not know.
    """

    dtype: DType
    shape: Shape | None
    trainable: bool = False
    name: str = ""
    device: str = ""
    synchronization: int = 0
    aggregation: int = 0
    components: list[VariableObject] = field(default_factory=list)
    opaque: bytes = b""


@dataclass(slots=True)
class ConstantObject:
    """A constant that functions capture; `node` is the Const in the main graph."""

    node: str = ""
    opaque: bytes = b""


@dataclass(slots=True)
class ResourceObject:
    """What has a handle and is no variable: a table, for which its children are functions that create and fill it."""

    device: str = ""
    opaque: bytes = b""


@dataclass(slots=True)
class CapturedTensorObject:
    """A tensor that a function captures from another function.

    Attributes:
        name: The tensor.
        concrete_function: The function that it is from.
        opaque: Fields that this version does not know.
    """

    name: str = ""
    concrete_function: str = ""
    opaque: bytes = b""


ObjectKind: TypeAlias = (
    UserObject | AssetObject | FunctionObject | VariableObject | ConcreteFunctionObject | ConstantObject
    | ResourceObject | CapturedTensorObject
)  # fmt: skip


@dataclass(slots=True)
class SavedObject:
    """One object of a SavedModel.

    Attributes:
        kind: What it is; None where the message does not say, or in words that this version does not know.
        children: Its attributes.
        dependencies: Objects that must be there before it is made.
        slot_variables: Of an optimizer: its slot variables.
        saveable_objects: How parts of it are saved, by the part's name.
        registered_name: The name under which its class was registered, such as `Custom>Layer`.
        registered_saver: The saver that its values are saved with, where it is not the usual one.
        serialized_user_proto: A message of the class's own (an Any), as bytes, or None.
        opaque: Fields that this version does not know.
    """

    kind: ObjectKind | None = None
    children: Sequence[Child] = field(default_factory=list)
    dependencies: Sequence[Child] = field(default_factory=list)
    slot_variables: Sequence[SlotVariable] = field(default_factory=list)
    saveable_objects: Mapping[str, SaveableObject] = field(default_factory=dict)
    registered_name: str = ""
    registered_saver: str = ""
    serialized_user_proto: bytes | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class ConcreteFunction:
    """What the object graph says of one function of the library.

    Attributes:
        bound_inputs: The objects that it captures: its last arguments.
        canonicalized_input_signature: What it was traced with: a tuple (arguments, keyword arguments).
        output_signature: What it gives.
        opaque: Fields that this version does not know.
    """

    bound_inputs: list[int] = field(default_factory=list)
    canonicalized_input_signature: StructuredValue | Absent = ABSENT
    output_signature: StructuredValue | Absent = ABSENT
    opaque: bytes = b""


@dataclass(slots=True)
class ObjectGraph:
    """The object graph of a SavedModel (SavedObjectGraph).

    What was read from a file is read object by object, when it is asked for; it must not be changed in place.

    Attributes:
        nodes: The objects; the root is at 0.
        concrete_functions: What is known of functions of the library, by name.
        opaque: Fields that this version does not know.
    """

    nodes: Sequence[SavedObject] = field(default_factory=list)
    concrete_functions: Mapping[str, ConcreteFunction] = field(default_factory=dict)
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class SerializedTensor:
    """A value of an object in a checkpoint.

    Attributes:
        name: Which value, such as `VARIABLE_VALUE`.
        full_name: The variable's name in Python, which a name-based checkpoint would use.
        checkpoint_key: The key in the checkpoint.
        opaque: Fields that this version does not know.
    """

    name: str
    full_name: str
    checkpoint_key: str
    opaque: bytes = b""


@dataclass(frozen=True, slots=True)
class RegisteredSaver:
    """The saver of an object that is not saved the usual way.

    Attributes:
        name: The saver.
        object_name: The name of the object.
        opaque: Fields that this version does not know.
    """

    name: str
    object_name: str
    opaque: bytes = b""


@dataclass(slots=True)
class TrackableObject:
    """One object of an object-based checkpoint.

    Attributes:
        children: Its attributes.
        attributes: Its values.
        slot_variables: Of an optimizer: its slot variables.
        registered_saver: Its saver, where it is not the usual one.
        has_checkpoint_values: Whether it or anything below it has values; None where the checkpoint does not say.
        opaque: Fields that this version does not know.
    """

    children: Sequence[Child] = field(default_factory=list)
    attributes: Sequence[SerializedTensor] = field(default_factory=list)
    slot_variables: Sequence[SlotVariable] = field(default_factory=list)
    registered_saver: RegisteredSaver | None = None
    has_checkpoint_values: bool | None = None
    opaque: bytes = b""


@dataclass(slots=True)
class TrackableObjectGraph:
    """The object graph of a checkpoint (TrackableObjectGraph, under the key `_CHECKPOINTABLE_OBJECT_GRAPH`).

    What was read from a file is read object by object, when it is asked for; it must not be changed in place.

    Attributes:
        nodes: The objects; the root is at 0.
        opaque: Fields that this version does not know.
    """

    nodes: Sequence[TrackableObject] = field(default_factory=list)
    opaque: bytes = b""
