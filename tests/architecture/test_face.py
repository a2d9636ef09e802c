"""The public face: what is public is named, documented and found at one place."""

import ast
import inspect
import re

import pytest
from source_tree import PACKAGE, ROOT, parsed, sources

import tfthaw

PUBLIC = [name for name in tfthaw.__all__ if name != "__version__"]


def _declared():
    """Return what the TYPE_CHECKING block of the face says: public name -> (module, name there)."""
    (block,) = [node for node in parsed(PACKAGE / "__init__.py").body if isinstance(node, ast.If)]
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_all_names_what_dir_shows_and_nothing_twice():
    assert sorted(tfthaw.__all__) == dir(tfthaw)
    assert len(set(tfthaw.__all__)) == len(tfthaw.__all__)


def test_type_checkers_and_the_running_face_see_the_same():
    assert _declared() == tfthaw._PLACES


def test_names_for_type_checkers_are_exported_under_their_own_name():
    (block,) = [node for node in parsed(PACKAGE / "__init__.py").body if isinstance(node, ast.If)]
    assert all(alias.asname for node in block.body for alias in node.names), "`as` is what makes an import public"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(tfthaw, name)
    assert inspect.getdoc(value)
    assert value.__doc__.strip().splitlines()[0].endswith((".", "?", ":", ";", ",")) or "\n" in value.__doc__


def test_every_error_of_the_tree_is_public():
    from tfthaw import errors

    classes = [
        value for value in vars(errors).values() if inspect.isclass(value) and value.__module__ == errors.__name__
    ]
    assert {value.__name__ for value in classes} <= set(tfthaw.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        tfthaw.no_such_name  # noqa: B018


def _errors():
    tree = parsed(PACKAGE / "errors.py")
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef)]


def _names(node):
    return {child.id if isinstance(child, ast.Name) else child.attr
            for child in ast.walk(node) if isinstance(child, (ast.Name, ast.Attribute))}  # fmt: skip


@pytest.mark.parametrize("name", _errors())
def test_every_error_is_raised_somewhere(name):
    """A class counts as raised where a `raise` names it, or where it is chosen or made for one."""
    found = False
    for path in sources("src/tfthaw"):
        if path.name == "errors.py":
            continue
        for node in ast.walk(parsed(path)):
            made = isinstance(node, ast.Call) and name in _names(node.func)
            chosen = isinstance(node, ast.IfExp) and name in _names(node)
            found = found or made or chosen or (isinstance(node, ast.Raise) and name in _names(node))
    assert found


@pytest.mark.parametrize("name", _errors())
def test_every_error_is_asserted_in_some_test(name):
    found = False
    for path in sources("tests"):
        if "architecture" in path.parts:
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("raises", "parametrize"):
                found = found or name in _names(node)
    assert found


def test_one_version_everywhere():
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert version == tfthaw.__version__
    assert re.search(rf"^## \[?{re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
