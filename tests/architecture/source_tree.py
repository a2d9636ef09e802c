"""The package's own source, parsed once for the tests of this folder."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "tfthaw"


@cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def sources(*folders: str) -> list[Path]:
    """Return the Python files under folders of the repository, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    """Return the dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def unit_of(module: str) -> str:
    """Return the room that a module of the package is in: its folder, or its own name on the ground."""
    return [*module.split("."), ""][1]


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every module that is imported anywhere in a tree, functions and TYPE_CHECKING included, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            if node.module == "tfthaw":
                for alias in node.names:
                    yield f"tfthaw.{alias.name}", node.lineno
            else:
                yield str(node.module), node.lineno


def at_module_level(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported, those of classes, ifs and tries included."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        yield node
        for child in ast.walk(node):
            if child is not node and isinstance(child, ast.stmt) and child in ast.iter_child_nodes(node):
                waiting.append(child)
            elif isinstance(child, ast.ExceptHandler) and child in ast.iter_child_nodes(node):
                waiting += child.body
