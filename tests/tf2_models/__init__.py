"""TensorFlow 2 models for differential tests: each is small, and is asked for its outputs while it lives.

A recipe builds a model with Keras 3, tf_keras (Keras 2 in an older TensorFlow) or plain `tf.Module`. `save` writes it
with TensorFlow's own means and records what the living model answers. Neither pytest nor tfthaw is known here, so that
any TensorFlow from 2.12 on can run it, each recipe by its name.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

Array = Any
Feeds = dict[str, Array]

DEFAULT = "serving_default"


@dataclass
class Live:
    """A model that lives in this process.

    Attributes:
        root: What is saved.
        functions: signature -> its tf.function, with its input signature, or its concrete function.
        feeds: signature -> the inputs of one call after the other.
        save: How it is saved; None for `tf.saved_model.save` with the functions as signatures.
    """

    root: Any
    functions: dict[str, Any]
    feeds: dict[str, list[Feeds]]
    save: Callable[[str], Any] | None = None


@dataclass(frozen=True)
class Call:
    """What a signature answered.

    Attributes:
        signature: Its key.
        feeds: input -> values.
        expected: output -> values.
    """

    signature: str
    feeds: Feeds
    expected: dict[str, Array]


@dataclass(frozen=True)
class Saved:
    """A SavedModel and what its model answered before.

    Attributes:
        name: The recipe's name.
        path: Where it is.
        calls: The calls, in the order in which they were made.
        captured: signature -> how many variables it and its gradients capture, and how many of them are trainable.
        gradients: signature -> the sums of the gradients' squares, sorted; empty where none was asked for.
    """

    name: str
    path: Path
    calls: list[Call]
    captured: dict[str, tuple[int, int]]
    gradients: dict[str, list[float]]

    @property
    def signatures(self) -> list[str]:
        """The keys of its signatures."""
        return list(self.captured)

    def calls_of(self, signature: str) -> list[Call]:
        """Return the calls of one signature."""
        return [call for call in self.calls if call.signature == signature]


@dataclass(frozen=True)
class Recipe:
    """How to make a model.

    Attributes:
        name: The model's name.
        build: Makes it.
        frozen: Whether it can be a frozen graph: what keeps state that an output needs cannot.
        moves: Whether anything but its SavedModel as a whole can hold it: tables that are written to cannot move.
        trains: Whether gradients are recorded.
        beside: How many variables, none of which trains, only its gradients take.
        precision: The dtype that it computes with, where that is shorter than what its outputs are.
        since: The oldest TensorFlow that has what it uses.
    """

    name: str
    build: Callable[[Any], Live]
    frozen: bool = True
    moves: bool = True
    trains: bool = True
    beside: int = 0
    precision: str | None = None
    since: tuple[int, int] = (2, 12)


RECIPES: dict[str, Recipe] = {}


def recipe(**options: Any) -> Callable[[Callable[[Any], Live]], Callable[[Any], Live]]:
    """Register the function that is decorated, under its own name."""

    def register(build: Callable[[Any], Live]) -> Callable[[Any], Live]:
        add(Recipe(build.__name__, build, **options))
        return build

    return register


def add(new: Recipe) -> None:
    """Register a recipe."""
    if new.name in RECIPES:
        raise ValueError(f"two recipes are called {new.name}")
    RECIPES[new.name] = new


def save(tf: Any, chosen: Recipe, folder: Path) -> Saved:
    """Build a model, record what it answers, and write it as a SavedModel."""
    with warnings.catch_warnings(), quiet(tf):
        warnings.simplefilter("ignore")
        tf.random.set_seed(11)
        live = chosen.build(tf)
        concrete = {key: _concrete(function) for key, function in live.functions.items()}
        captured = {key: _captured(live, function, chosen.beside) for key, function in concrete.items()}
        gradients = {}
        if chosen.trains:
            variables = _variables(live)
            gradients = {key: gradient_norms(tf, each, variables, live.feeds[key][0]) for key, each in concrete.items()}
        path = folder / chosen.name
        if live.save is not None:
            live.save(str(path))
        else:
            tf.saved_model.save(live.root, str(path), signatures=concrete)
        names = _output_names(path)
        calls = [
            Call(key, feeds, _answer(tf, concrete[key], feeds, names[key]))
            for key, every in live.feeds.items() for feeds in every
        ]  # fmt: skip
    return Saved(chosen.name, path, calls, captured, gradients)


def as_tensors(tf: Any, function: Any, feeds: Feeds) -> dict[str, Any]:
    """Return the inputs of a concrete function as tensors of the dtypes that it takes."""
    dtypes = {}
    for spec in tf.nest.flatten(function.structured_input_signature):
        dtypes[spec.name] = spec.dtype
    return {name: tf.constant(values, dtypes[name]) for name, values in feeds.items()}


def gradient_norms(tf: Any, function: Any, variables: list[Any], feeds: Feeds) -> list[float]:
    """Return the squared norm of every variable's gradient of the floating outputs, sorted; none where it has none."""
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        for variable in variables:
            if variable.dtype.is_floating:
                tape.watch(variable)
        outputs = tf.nest.flatten(function(**as_tensors(tf, function, feeds)))
        total = sum(tf.reduce_sum(tf.cast(each, tf.float32) ** 2) for each in outputs if each.dtype.is_floating)
    watched = [variable for variable in variables if variable.dtype.is_floating]
    found = [tf.convert_to_tensor(each) for each in tape.gradient(total, watched) if each is not None]
    return sorted(float(tf.reduce_sum(tf.cast(each, tf.float32) ** 2)) for each in found)


@contextlib.contextmanager
def quiet(tf: Any) -> Iterator[None]:
    """Keep TensorFlow's and Keras' loggers silent while the block runs."""
    import logging

    loggers = [tf.get_logger(), logging.getLogger("absl")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.FATAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _concrete(function: Any) -> Any:
    return function if hasattr(function, "captured_inputs") else function.get_concrete_function()


def _variables(live: Live) -> list[Any]:
    """Return the variables that a root holds, each once, as TensorFlow's own objects."""
    every = [each for each in live.root.variables if hasattr(each, "handle")]  # Keras 2 counts vocabularies too
    every = [each if callable(each.value) else each.value for each in every]  # Keras 3 wraps them
    return list({id(each): each for each in every}.values())


def _captured(live: Live, function: Any, beside: int) -> tuple[int, int]:
    """Count the variables whose handles a function captures, and the trainable ones among them."""
    known = {id(each.handle): each for each in (*function.variables, *_variables(live))}
    found = [known[id(handle)] for handle in function.captured_inputs if id(handle) in known]
    return len(found) + beside, sum(bool(variable.trainable) for variable in found)


def _answer(tf: Any, function: Any, feeds: Feeds, names: list[str]) -> dict[str, Array]:
    outputs = function(**as_tensors(tf, function, feeds))
    if not isinstance(outputs, dict):
        flat = tf.nest.flatten(outputs)
        outputs = dict(zip(names, flat, strict=True))
    return {name: values.numpy() for name, values in outputs.items()}


def _output_names(path: Path) -> dict[str, list[str]]:
    """Return the outputs' names of every signature of a SavedModel, in the order of their tensors."""
    from tensorflow.core.protobuf import saved_model_pb2

    message = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    return {
        key: sorted(signature.outputs, key=lambda name: signature.outputs[name].name)
        for key, signature in message.meta_graphs[0].signature_def.items()
    }


def normal(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return seeded values around zero."""
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


import tf2_models.control_flow  # noqa: E402  these register their recipes
import tf2_models.keras_models  # noqa: E402
import tf2_models.layers  # noqa: E402
import tf2_models.state  # noqa: E402
import tf2_models.tables  # noqa: E402
import tf2_models.variables  # noqa: E402,F401
