"""Refuse code that trains while it is imported.

It would train at each conversion, and could write over the very checkpoint that is converted.

Keras may not be there yet when the code is imported, and most code for graphs never wants it, so that it is met when
it comes.

Source: where `Model` is in Keras 3, tf_keras, and the Keras 2 of TensorFlow 2.12 to 2.15.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from tfthaw.errors import UsageError

_HOMES = ("keras.src.models.model", "tf_keras.src.engine.training", "keras.src.engine.training",
          "keras.engine.training")  # fmt: skip
_METHODS = ("fit", "fit_generator", "train_on_batch")


@contextlib.contextmanager
def refusing_to_train() -> Iterator[None]:
    """Let Keras models refuse to be trained in this scope."""
    with contextlib.ExitStack() as undone:
        finder = _Finder(undone)
        sys.meta_path.insert(0, finder)
        undone.callback(sys.meta_path.remove, finder)
        for name in _HOMES:
            if name in sys.modules:
                _guard(sys.modules[name], undone)
        yield


class _Finder(importlib.abc.MetaPathFinder):
    """Meets the modules in which Keras's models are, when they are imported."""

    def __init__(self, undone: contextlib.ExitStack) -> None:
        self._undone = undone

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find one of them where others find it."""
        if fullname not in _HOMES:
            return None
        for finder in [each for each in sys.meta_path if each is not self]:
            spec = finder.find_spec(fullname, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader, self._undone)
                return spec
        return None


class _Loader(importlib.abc.Loader):
    """Loads a module as its own loader does, and guards the models in it."""

    def __init__(self, loader: Any, undone: contextlib.ExitStack) -> None:
        self._loader = loader
        self._undone = undone

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Make the module."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run it."""
        self._loader.exec_module(module)
        _guard(module, self._undone)


def _guard(module: ModuleType, undone: contextlib.ExitStack) -> None:
    model = vars(module).get("Model")
    if model is None:
        return
    for name in _METHODS:
        own = vars(model).get(name)
        setattr(model, name, _refuse)
        undone.callback(delattr, model, name) if own is None else undone.callback(setattr, model, name, own)


def _refuse(*_: Any, **__: Any) -> None:
    raise UsageError(
        "the code trains while it is imported",
        hint='put the training under `if __name__ == "__main__":`, and let a function build the model',
    )
