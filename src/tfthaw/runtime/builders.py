"""Code that builds a model: whether a target is such code, and calling it eagerly or into a graph.

What a builder does while it runs (counting its layers, keeping what it made) stays in the process, so that calling it a
second time may give another model. Which way it goes is told by its source before it is called; where that was wrong,
`OtherWay` says so, and a process of our own is started anew. In the caller's process it is called again.
"""

from __future__ import annotations

import enum
import gc
import inspect
from collections.abc import Collection, Iterator, Mapping
from types import CodeType
from typing import Any

from tfthaw.errors import TfthawError, UsageError
from tfthaw.runtime.endpoints import Request, is_function
from tfthaw.runtime.graph_code import graph_given
from tfthaw.runtime.keras_models import is_keras_layer
from tfthaw.runtime.user_lines import is_installed

_OF_GRAPHS = frozenset((
    "placeholder", "placeholder_with_default", "get_variable", "import_meta_graph", "make_one_shot_iterator",
    "make_initializable_iterator", "reset_default_graph",
))  # fmt: skip
_MOST_FUNCTIONS = 500
_RETURN = "return the model, or the inputs and outputs of the graph that it builds"


class Way(enum.Enum):
    """How a builder is called."""

    EAGERLY = "eagerly"
    IN_A_GRAPH = "in a graph"

    @property
    def other(self) -> Way:
        """The other one."""
        return Way.IN_A_GRAPH if self is Way.EAGERLY else Way.EAGERLY


class OtherWay(Exception):  # noqa: N818  # it is no error: it says how to go on
    """A builder was called in a way that is not its own.

    Attributes:
        way: The other one.
        error: What it raised; None where what it gave shows it.
    """

    def __init__(self, way: Way, error: TfthawError | None = None) -> None:
        super().__init__(way)
        self.way = way
        self.error = error


def likely_way(tf: Any, builder: Any) -> Way:
    """Return how a builder is likely to be meant: by the names in its own code and in what of the user's it calls."""
    if not tf.executing_eagerly() or any(_OF_GRAPHS & names for names in _names_in_code(builder)):
        return Way.IN_A_GRAPH
    return Way.EAGERLY


def _names_in_code(builder: Any) -> Iterator[set[str]]:
    """Yield the names that each function uses which a builder may call, as far as it is the user's."""
    waiting = [builder]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_FUNCTIONS:
        value = waiting.pop()
        value = getattr(value, "func", value)  # of a partial
        if id(value) in seen:
            continue
        seen.add(id(value))
        if inspect.isclass(value) or not inspect.isroutine(value):
            kind = value if inspect.isclass(value) else type(value)
            waiting += [item for item in vars(kind).values() if inspect.isfunction(item)]
            continue
        function = inspect.unwrap(getattr(value, "__func__", value))
        code = getattr(function, "__code__", None)
        if code is None or is_installed(code.co_filename):
            continue
        names = _names_of(code)
        yield names
        held = [cell.cell_contents for cell in function.__closure__ or () if _is_filled(cell)]
        found = [function.__globals__[name] for name in names if name in function.__globals__]
        for item in [*held, *found]:
            parts = [vars(item).get(name) for name in names] if inspect.ismodule(item) else [item]
            waiting += [part for part in parts if inspect.isfunction(part) or inspect.isclass(part)]


def _names_of(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_of(constant)
    return names


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def is_builder(tf: Any, target: Any, request: Request) -> bool:
    """Whether a target is called in order to get the model.

    Raises:
        UsageError: It needs arguments that nobody gives.
    """
    if inspect.isclass(target):
        required = _required(target)
    elif _is_model(tf, target):
        return False
    else:
        required = _required(target)
    if not required:
        return True
    declared = {item.name for item in request.inputs}
    is_plain = not inspect.isclass(target)
    if is_plain and (set(required) <= declared or len(required) == len(declared) or _is_annotated(tf, target)):
        return False
    name = getattr(target, "__name__", type(target).__name__)
    raise UsageError(
        f"{name} needs arguments: {', '.join(required)}", path=request.code,
        hint=f"name a function without arguments that calls it, such as `def exported(): return {name}(...)`; or, "
        "where the arguments are the tensors that it computes with, declare them: --input 'x:float32[?,784]'",
    )  # fmt: skip


def computes(tf: Any, result: Any) -> bool:
    """Whether what a builder gave eagerly is what it computed: what builds a graph computes at once in eager mode."""
    if result is None or graph_given(tf, result) is not None:
        return True
    flat = tf.nest.flatten(result)
    return bool(flat) and all(isinstance(item, (tf.Tensor, tf.Variable)) and not is_keras_layer(item) for item in flat)


def may_be_traced(tf: Any, result: Any) -> bool:
    """Whether what a builder gave is something to trace, and not a part of a graph."""
    if isinstance(result, Mapping):
        return any(may_be_traced(tf, item) for item in result.values())
    return is_keras_layer(result) or isinstance(result, tf.Module) or callable(result)


def refuse_nothing(tf: Any, result: Any, request: Request, before: Collection[int]) -> None:
    """Refuse a builder that made a model and gave nothing.

    Args:
        tf: TensorFlow.
        result: What it gave.
        request: What the user asked for.
        before: What `models_alive` gave before.

    Raises:
        UsageError: It did.
    """
    if result is None and not request.graph_outputs and models_alive(tf) - set(before):
        raise UsageError("the code builds a model and gives nothing", path=request.code, hint=_RETURN)


def models_alive(tf: Any) -> set[int]:
    """Return the ids of the Keras models and modules that are alive."""
    kinds: dict[type, bool] = {}
    found = set()
    for item in gc.get_objects():
        kind = type(item)
        if kind not in kinds:
            kinds[kind] = is_keras_layer(item) or issubclass(kind, tf.Module)
        if kinds[kind]:
            found.add(id(item))
    return found


def _is_model(tf: Any, target: Any) -> bool:
    """Whether a target is what gets exported, and not what makes it."""
    if is_keras_layer(target) or is_function(target) or isinstance(target, tf.Module) or not callable(target):
        return True
    return not inspect.isroutine(target) and is_function(target.__call__)


def _required(target: Any) -> list[str]:
    """Return the arguments that a callable cannot do without."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return []
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [item.name for item in parameters if item.default is inspect.Parameter.empty and item.kind not in variadic]


def _is_annotated(tf: Any, target: Any) -> bool:
    """Whether the annotations of a function are specs of tensors."""
    try:
        parameters = inspect.signature(target, eval_str=True).parameters.values()
    except (TypeError, ValueError, NameError):
        return False
    return all(isinstance(item.annotation, tf.TypeSpec) for item in parameters
               if item.default is inspect.Parameter.empty)  # fmt: skip
