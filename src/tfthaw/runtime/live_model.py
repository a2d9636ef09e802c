"""Live models: what was traced of the user's code, and running it with values that come from a checkpoint.

Running leaves the model as it is. A traced function takes the handles of variables as arguments; it is called with the
handles of other variables, which hold the given values. A graph of TensorFlow 1 runs in a session of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tfthaw.dtypes import DType
from tfthaw.errors import RuntimeFailure, UsageError
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.runtime.endpoints import Endpoint
from tfthaw.runtime.isolated import Answer, Run, run_isolated
from tfthaw.runtime.tensorflow_runner import quiet
from tfthaw.tensors import Array, Tensor


@dataclass(slots=True)
class Traced:
    """What was traced.

    Attributes:
        path: The MetaGraph: graph, signatures and collections, without values.
        objects: The objects that hold its variables.
        assets: The tensor that holds an asset's path -> the file.
        notes: What was guessed.
        runtime: What traced it, such as `tensorflow 2.21.0`.
        constants: Its constants, where one of them could be chance: place -> digests; see `tfthaw.runtime.chance`.
    """

    path: Path
    objects: LiveObjects
    assets: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    runtime: str = ""
    constants: dict[str, list[str]] = field(default_factory=dict)


class LiveModel(Protocol):
    """A model that was traced and can be run."""

    @property
    def traced(self) -> Traced:
        """What was traced."""
        ...

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], values: Mapping[str, Tensor]
    ) -> dict[str, Array]:
        """Run it.

        Args:
            inputs: tensor of the traced graph -> the values to feed.
            outputs: The tensors to compute.
            values: variable's node -> its value.

        Returns:
            tensor -> its values.

        Raises:
            RuntimeFailure: TensorFlow raised.
        """
        ...

    def run_artifacts(self, attempts: Sequence[Sequence[Run]]) -> Answer:
        """Run artifacts apart from the caller's process, such as what was written of this model; see `run_isolated`."""
        ...

    def close(self) -> None:
        """Let go of what it holds."""
        ...


@contextlib.contextmanager
def calling_eagerly(tf: Any) -> Iterator[None]:
    """Leave a graph that somebody is building; where eager execution is off altogether, all is a graph."""
    from tensorflow.python.eager import context

    if tf.executing_eagerly() or context.default_execution_mode != context.EAGER_MODE:
        yield
        return
    with context.eager_mode():
        yield


class FunctionModel:
    """Traced functions.

    Args:
        tf: TensorFlow.
        traced: What was traced.
        target: The object that has them; functions do not keep their variables alive.
        endpoints: The functions.
        signatures: key -> (inputs, outputs): name -> tensor of the traced graph.
        nodes: id of a variable -> its node in the traced graph.
    """

    def __init__(
        self, tf: Any, traced: Traced, target: Any, endpoints: Sequence[Endpoint], *,
        signatures: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], nodes: Mapping[int, str],
    ) -> None:  # fmt: skip
        self.traced = traced
        self._tf = tf
        self._target = target
        self._endpoints = list(endpoints)
        self._signatures = signatures
        self._nodes = nodes

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], values: Mapping[str, Tensor]
    ) -> dict[str, Array]:
        """Run every function whose outputs are asked for; see `LiveModel.run`."""
        held: dict[str, Any] = {}
        found: dict[str, Array] = {}
        for endpoint in self._endpoints:
            fed, given = self._signatures[endpoint.key]
            wanted = {tensor.name: name for name, tensor in given.items() if tensor.name in outputs}
            if not wanted:
                continue
            missing = [tensor.name for tensor in fed.values() if tensor.name not in inputs]
            if missing:
                raise UsageError(f"nothing is fed to {', '.join(missing)}")
            try:
                with calling_eagerly(self._tf):
                    results = self._call(endpoint, [inputs[tensor.name] for tensor in fed.values()], values, held)
                    computed = dict(zip(endpoint.outputs, results, strict=True))
                    found.update((tensor, np.asarray(computed[name].numpy())) for tensor, name in wanted.items())
            except (self._tf.errors.OpError, ValueError, TypeError) as error:
                raise RuntimeFailure(f"the live model does not run: {_shortened(error)}") from error
        return {tensor: found[tensor] for tensor in outputs}

    def _call(self, endpoint: Endpoint, arguments: Sequence[Array], values: Mapping[str, Tensor],
              held: dict[str, Any]) -> list[Any]:  # fmt: skip
        """Call a traced function with variables that hold the given values."""
        tf, concrete = self._tf, endpoint.concrete
        variables = {id(variable.handle): variable for variable in concrete.graph.variables}
        captured = []
        for outside in concrete.captured_inputs:
            variable = variables.get(id(outside))
            node = self._nodes[id(variable)] if variable is not None else ""
            if variable is None or node not in values:
                captured.append(outside)
                continue
            if node not in held:
                held[node] = tf.Variable(values[node].numpy(), dtype=variable.dtype, shape=variable.shape)
            captured.append(held[node].handle)
        tensors = [tf.convert_to_tensor(value, dtype=placeholder.dtype)
                   for value, placeholder in zip(arguments, concrete.inputs, strict=False)]  # fmt: skip
        results = tf.nest.flatten(concrete._call_flat(tensors, captured), expand_composites=True)
        return [item for item in results if item is not None]

    def run_artifacts(self, attempts: Sequence[Sequence[Run]]) -> Answer:
        """Run artifacts in a process of their own."""
        return run_isolated(attempts)

    def close(self) -> None:
        """Let go of the functions."""
        self._endpoints, self._target = [], None


class GraphModel:
    """A graph of TensorFlow 1 that code built.

    What is run is a copy, out of the MetaGraph that was written of it: restoring and initialising add nodes.

    Args:
        tf: TensorFlow.
        traced: What was traced.
    """

    def __init__(self, tf: Any, traced: Traced) -> None:
        self.traced = traced
        self._tf = tf

    def run(
        self, inputs: Mapping[str, Array], outputs: Sequence[str], values: Mapping[str, Tensor]
    ) -> dict[str, Array]:
        """Run the graph in a session of its own; see `LiveModel.run`."""
        v1 = self._tf.compat.v1
        config = v1.ConfigProto(allow_soft_placement=True)
        try:
            with self._tf.Graph().as_default() as graph, v1.Session(graph=graph, config=config) as session:
                with quiet():
                    v1.train.import_meta_graph(str(self.traced.path))
                others = [variable for variable in v1.local_variables() if variable.op.name not in values]
                session.run([v1.variables_initializer(others), v1.tables_initializer()])
                for variable in {*v1.global_variables(), *v1.local_variables()}:
                    if variable.op.name in values:
                        # the initializer's op, with another value in the place of the initial one
                        assign = variable.initializer
                        # a copy: sessions keep what they are fed until the next one runs, and so its file open
                        session.run(assign, {assign.inputs[1]: np.array(values[variable.op.name].numpy())})
                results = session.run(list(outputs), dict(inputs))
        except (self._tf.errors.OpError, ValueError, TypeError, KeyError) as error:
            raise RuntimeFailure(f"the live graph does not run: {_shortened(error)}") from error
        return dict(zip(outputs, results, strict=True))

    def run_artifacts(self, attempts: Sequence[Sequence[Run]]) -> Answer:
        """Run artifacts in a process of their own."""
        return run_isolated(attempts)

    def close(self) -> None:
        """Let go of nothing: the graph is the caller's."""


_AROUND = ("File ", "Detected at ", "Original stack trace", "Graph execution error", "<stack traces", "Node: ")


def _shortened(error: Exception) -> str:
    """Return what an exception says; TensorFlow puts the traceback of a node in front of it, behind it, or both."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    end = next((number for number, line in enumerate(lines) if line.lstrip().startswith("[[")), len(lines))
    words = [line.strip() for line in lines[:end] if not line[:1].isspace() or line.lstrip().startswith("(")]
    said = next((line for line in reversed(words) if not line.startswith(_AROUND)), "".join(words[:1]))
    return f"{type(error).__name__}: {said[:300]}"


def dtype_of(value: Any) -> DType:
    """Return the element type of a tensor or variable of TensorFlow."""
    return DType(value.dtype.base_dtype.as_datatype_enum)
