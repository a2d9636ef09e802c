"""Packages that only some work needs, imported when that work begins.

`require` is for packages that may not be installed; `lazy_module` for numpy, which always is and takes longer to import
than the rest of a short command takes to run.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from tfthaw.errors import MissingDependencyError


class _LazyModule:
    """Stands for a module; each name is looked up once, when it is first used."""

    def __init__(self, name: str) -> None:
        self._module_name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._module_name), attribute)
        setattr(self, attribute, value)
        return value


def lazy_module(name: str) -> Any:
    """Return what stands for a module and imports it when one of its names is first used."""
    return _LazyModule(name)


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional package or say how to install it.

    Args:
        module: The module to import, such as `h5py`.
        extra: The extra of tfthaw that brings it, such as `keras`.
        purpose: What it is needed for, as the end of the sentence "needed to ...".

    Returns:
        The module.

    Raises:
        MissingDependencyError: It cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            f"{module} is needed to {purpose} and cannot be imported ({error})",
            hint=f'install it with: pip install "tfthaw[{extra}]"',
        ) from error
