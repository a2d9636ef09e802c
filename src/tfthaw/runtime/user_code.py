"""Load the user's code: `MODULE:CALLABLE` or `FILE:CALLABLE` -> the object that it names.

The module is imported as a script would see itself, except that `__name__` is not `__main__`: its folder can be
imported from, `sys.argv` is its path alone, and what stands under `if __name__ == "__main__":` does not run. It stays
in `sys.modules` under its own name, as dataclasses and pickle need it. `sys.path` and `sys.argv` are put back then;
`UserCode.running` sets them again while functions of the module are called.

What the object is (a model, a function that builds one, a graph) is not found out here: see `tfthaw.runtime.endpoints`.

Source: importlib's recipe for importing a source file directly; how `python FILE` sets `sys.path` and `sys.argv`.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfthaw.errors import NotFoundError, UsageError
from tfthaw.runtime.explain import explain

_EXAMPLE = "write MODULE:CALLABLE, such as train.py:build_model"
_MOST_NAMES = 12


@dataclass(frozen=True)
class UserCode:
    """The user's code, loaded.

    Attributes:
        spec: What the user wrote.
        path: The file of the module; its name where it has no file.
        target: The object that the spec names.
        folders: What `sys.path` begins with while the code runs.
    """

    spec: str
    path: str
    target: Any
    folders: tuple[str, ...] = ()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Let `sys.path` and `sys.argv` be as the code expects them while the block runs."""
        with _as_a_script(self.path, self.folders):
            yield


@dataclass(frozen=True)
class _Place:
    """Where a module is.

    Attributes:
        name: The name to import.
        path: The file; empty for a module that is named, not its file.
        folders: What `sys.path` must begin with.
    """

    name: str
    path: str
    folders: tuple[str, ...]

    @property
    def shown(self) -> str:
        """What to call it in messages."""
        return _relative(self.path) if self.path else self.name


def _relative(path: str) -> str:
    """Return a path as seen from the current directory, where it lies below that."""
    try:
        relative = os.path.relpath(path)
    except (ValueError, OSError):  # another drive; a current directory that is gone
        return path
    return path if relative.startswith(os.pardir) else relative


def check_spec(spec: str) -> None:
    """Refuse a spec that is not of the form, or whose file is not there, without running anything.

    Raises:
        UsageError: It is not of the form `MODULE:NAME` or `FILE:NAME`.
        NotFoundError: There is no such file.
    """
    module, _ = _split(spec)
    _place(module, spec)


def code_file(spec: str) -> str:
    """Return the file that a spec means: for a module, one in the working directory; empty where there is none.

    Raises:
        UsageError: It is not of the form `MODULE:NAME` or `FILE:NAME`.
        NotFoundError: There is no such file.
    """
    place = _place(_split(spec)[0], spec)
    beside = f"{place.name.replace('.', os.sep)}.py"
    return place.path or (beside if os.path.isfile(beside) else "")


def load_code(spec: str) -> UserCode:
    """Import a module of the user's and return what it holds under a name.

    Args:
        spec: `MODULE:NAME` or `FILE:NAME`; NAME may be dotted (`Class.method`).

    Raises:
        UsageError: The spec is not of that form, the file is not Python, or the module cannot be imported as it is.
        NotFoundError: There is no such file, module or name.
        MissingDependencyError: The module imports a package that is not installed.
        RuntimeFailure: The module raised.
    """
    module_text, names = _split(spec)
    place = _place(module_text, spec)
    with _as_a_script(place.path or place.name, place.folders):
        module = _import(place)
        path = str(getattr(module, "__file__", None) or place.path or place.name)
        return UserCode(spec, path, _attribute(module, names, _relative(path)), place.folders)


def _split(spec: str) -> tuple[str, list[str]]:
    """Return the module's part of a spec and the names after its last colon."""
    module, _, names = spec.rpartition(":")
    parts = names.split(".")
    if module and all(part.isidentifier() for part in parts):
        return module, parts
    wanted = spec.rstrip(":")
    if os.path.isfile(wanted):
        known = ", ".join(_names_in_source(wanted)[:_MOST_NAMES])
        hint = f"{_EXAMPLE}; it has: {known}" if known else _EXAMPLE
        raise UsageError("it is not said which callable of the file is meant", path=wanted, hint=hint)
    raise UsageError(f"{spec!r} names no callable of a module", hint=_EXAMPLE)


def _place(text: str, spec: str) -> _Place:
    """Return where the module of a spec is."""
    is_file = text.endswith((".py", ".ipynb")) or os.sep in text or "/" in text or os.path.isfile(text)
    if not is_file:
        if not all(part.isidentifier() for part in text.split(".")):
            raise UsageError(f"{spec!r}: {text!r} is neither a module nor a file", hint=_EXAMPLE)
        return _Place(text, "", ("",))  # the current directory, as `python -c` has it
    path = Path(text).expanduser()
    if path.suffix == ".ipynb":
        hint = f"turn it into one with: jupyter nbconvert --to script {text}"
        raise UsageError("a notebook is no Python module", path=text, hint=hint)
    if not path.is_file():
        raise _no_file(path, text)
    return _file_place(Path(os.path.abspath(path)))


def _file_place(path: Path) -> _Place:
    """Return how a file is imported: within its package where it lies in one, else by its own name."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts.insert(0, folder.name)
        folder = folder.parent
    if path.stem == "__init__":
        parts.pop()
    folders = (str(folder),) if folder == path.parent else (str(folder), str(path.parent))
    return _Place(".".join(parts), str(path), folders)


def _no_file(path: Path, text: str) -> NotFoundError:
    if path.is_dir():
        return NotFoundError("a folder is no Python file", path=text, hint=_EXAMPLE)
    folder = path.parent
    if not folder.is_dir():
        return NotFoundError(f"there is no folder {folder}", path=text)
    files = sorted(item.name for item in folder.glob("*.py"))
    near = difflib.get_close_matches(path.name, files, n=3, cutoff=0.5) or files[:5]
    return NotFoundError("there is no such file", path=text, hint=f"there are: {', '.join(near)}" if near else None)


def _import(place: _Place) -> ModuleType:
    """Import a module; what it raises is explained."""
    try:
        return _import_file(place) if place.path else importlib.import_module(place.name)
    except ModuleNotFoundError as error:
        if not place.path and error.name and f"{place.name}.".startswith(f"{error.name}."):
            raise _no_module(place.name, error.name) from error
        raise explain(error, place.shown, "import the module") from error
    except (Exception, SystemExit) as error:  # noqa: BLE001  # the user's module raises what it likes
        explained = explain(error, place.shown, "import the module")
        raise explained from (error.__cause__ if explained is error else error)


def _import_file(place: _Place) -> ModuleType:
    """Import a file: by the import system where that finds this very file, else under a name of its own."""
    known = sys.modules.get(place.name)
    if known is not None and _is_file_of(known, place.path):
        return known
    if known is None and "." in place.name and Path(place.path).stem.isidentifier():
        module = importlib.import_module(place.name)
        if _is_file_of(module, place.path):
            return module
    name = place.name if place.name.isidentifier() and place.name not in sys.modules else _free_name(place.path)
    if name in sys.modules:
        return sys.modules[name]
    found = importlib.util.spec_from_file_location(name, place.path)
    if found is None or found.loader is None:
        raise UsageError("it is no Python file", path=place.path, hint=_EXAMPLE)
    module = importlib.util.module_from_spec(found)
    sys.modules[name] = module
    try:
        found.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _free_name(path: str) -> str:
    """Return a name that no module has, for a file whose own name is taken or is none."""
    stem = "".join(letter if letter.isidentifier() or letter.isdigit() else "_" for letter in Path(path).stem)
    number = 0
    name = f"user_code_{stem}"
    while name in sys.modules and not _is_file_of(sys.modules[name], path):
        number += 1
        name = f"user_code_{stem}_{number}"
    return name


def _is_file_of(module: ModuleType, path: str) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and os.path.realpath(file) == os.path.realpath(path)


def _no_module(name: str, missing: str) -> NotFoundError:
    """Return the error for a module that is not there, with the nearest ones."""
    parent = missing.rpartition(".")[0]
    folders = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else [os.curdir]
    known = sorted(
        item.stem
        for folder in folders
        for item in Path(folder).iterdir()
        if item.suffix == ".py" or (item / "__init__.py").is_file()
    )
    last = missing.rpartition(".")[2]
    near = difflib.get_close_matches(last, known, n=3, cutoff=0.5)
    if near:
        hint = "near names: " + ", ".join(f"{parent}.{item}" if parent else item for item in near)
    else:
        hint = "name its file, or add its folder to PYTHONPATH"
    return NotFoundError(f"there is no module {missing!r}", path=name, hint=hint)


def _attribute(module: ModuleType, names: list[str], path: str) -> Any:
    """Return what a module holds under a dotted name."""
    value: Any = module
    for position, name in enumerate(names):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            owner = ".".join(names[:position])
            known = _callables(module) if position == 0 else [item for item in dir(value) if not item.startswith("_")]
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
            listed = ", ".join(known[:_MOST_NAMES]) or "nothing that could be called"
            hint = f"near names: {', '.join(near)}" if near else f"it has: {listed}"
            raise NotFoundError(
                f"{owner or 'the module'} has no {name!r}", path=path, hint=hint
            ) from error  # fmt: skip
    return value


def _callables(module: ModuleType) -> list[str]:
    """Return the public names of a module that could build a model or be one: what it defines itself, and objects."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
        and (_is_object(value) or getattr(value, "__module__", module.__name__) == module.__name__)
    ]  # fmt: skip


def _is_object(value: Any) -> bool:
    """Whether a callable is neither a function nor a class: a model, perhaps."""
    return not inspect.isclass(value) and not inspect.isroutine(value)


def _names_in_source(path: str) -> list[str]:
    """Return the public functions and classes of a file, without running it."""
    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    definitions = (ast.FunctionDef, ast.ClassDef)
    return [node.name for node in tree.body if isinstance(node, definitions) and not node.name.startswith("_")]


@contextlib.contextmanager
def _as_a_script(path: str, folders: tuple[str, ...]) -> Iterator[None]:
    """Let `sys.path` and `sys.argv` be those of a script while the block runs."""
    added = [folder for folder in folders if folder not in sys.path]
    arguments = sys.argv
    sys.argv = [path]
    sys.path[:0] = added
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.argv = arguments
        for folder in added:
            with contextlib.suppress(ValueError):  # the code may have taken it out
                sys.path.remove(folder)
