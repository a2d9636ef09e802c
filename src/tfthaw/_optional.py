"""Packages that only some work needs, imported when that work begins."""

from __future__ import annotations

import importlib
from types import ModuleType

from tfthaw.errors import MissingDependencyError


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
