"""Habits of the house that a linter does not hold: sizes, names, docstrings, excepts."""

import ast
import re

import pytest
from source_tree import ROOT, module_name, parsed, sources, unit_of

PACKAGE_FILES = sources("src/tfthaw")
EVERY_FILE = sources("src", "tests", "tools", "benchmarks")
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def place(path, node=None):
    return f"{path.relative_to(ROOT)}{f':{node.lineno}' if node else ''}"


def test_no_file_is_long():
    long = {place(path): count for path in EVERY_FILE if (count := len(path.read_text().splitlines())) > MAX_FILE_LINES}
    assert not long


def test_no_function_is_long():
    long = {
        f"{place(path, node)} {node.name}": node.end_lineno - node.lineno + 1
        for path in EVERY_FILE
        for node in ast.walk(parsed(path))
        if isinstance(node, DEFINITIONS) and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    }
    assert not long


def _public(tree):
    """Yield the public classes and functions of a module, and the public methods of its public classes."""
    waiting = [node for node in tree.body if isinstance(node, (*DEFINITIONS, ast.ClassDef))]
    while waiting:
        node = waiting.pop()
        if node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            waiting += [child for child in node.body if isinstance(child, DEFINITIONS) and not _is_setter(child)]


def _is_setter(node):
    """Whether a method sets a property, whose getter is what has the docstring."""
    return any(isinstance(item, ast.Attribute) and item.attr == "setter" for item in node.decorator_list)


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=place)
def test_everything_public_has_a_docstring(path):
    tree = parsed(path)
    lines = path.read_text().splitlines()
    without = [
        place(path, node)
        for node in _public(tree)
        if ast.get_docstring(node) is None and "# docstring inherited" not in lines[node.body[0].lineno - 2]
    ]
    assert not without
    assert ast.get_docstring(tree)


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=place)
def test_every_raise_in_a_handler_says_what_from(path):
    wrong = []
    for handler in ast.walk(parsed(path)):
        if isinstance(handler, ast.ExceptHandler):
            wrong += [place(path, node) for node in ast.walk(handler)
                      if isinstance(node, ast.Raise) and node.exc is not None and node.cause is None
                      and not (isinstance(node.exc, ast.Name) and node.exc.id == handler.name)]  # fmt: skip
    assert not wrong


@pytest.mark.parametrize("path", PACKAGE_FILES, ids=place)
def test_no_except_is_bare_or_broad_outside_the_runtime(path):
    handlers = [node for node in ast.walk(parsed(path)) if isinstance(node, ast.ExceptHandler)]
    broad = [place(path, node) for node in handlers if node.type is None or _names_everything(node.type)]
    assert not broad or unit_of(module_name(path)) == "runtime"


def _names_everything(node):
    return any(isinstance(name, ast.Name) and name.id in ("Exception", "BaseException") for name in ast.walk(node))


def test_no_room_for_everything():
    wrong = [place(path) for path in EVERY_FILE if path.stem in ("utils", "util", "helpers", "common", "misc")]
    assert not wrong


def test_nothing_is_put_off():
    mark = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX)\b")
    assert not [place(path) for path in EVERY_FILE if mark.search(path.read_text())]


def test_no_test_is_skipped():
    wrong = []
    for path in sources("tests"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute) and node.attr in ("skip", "skipif", "importorskip", "xfail"):
                wrong.append(place(path, node))
    assert not wrong
