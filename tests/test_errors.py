"""The error tree: its parents, its sentences, its lists."""

import inspect
import pickle

import pytest

from tfthaw import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_a_tfthaw_error_with_a_docstring(cls):
    assert issubclass(cls, errors.TfthawError)
    assert cls.__doc__


@pytest.mark.parametrize("cls", CLASSES)
def test_the_tree_of_the_module_names_every_class(cls):
    assert cls.__name__ in errors.__doc__


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.FormatError, ValueError), (errors.StructureError, ValueError), (errors.NotFoundError, KeyError),
        (errors.UnsupportedError, NotImplementedError), (errors.OutputExistsError, FileExistsError),
        (errors.MissingDependencyError, ImportError), (errors.UsageError, ValueError),
    ],
)  # fmt: skip
def test_builtin_parents(cls, builtin):
    assert issubclass(cls, builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_message_reads_path_where_message_hint(cls):
    error = cls("expected 1, found 2", path="a.pb", where="node 'x'", hint="convert it again")
    assert str(error) == "a.pb: node 'x': expected 1, found 2; convert it again"
    assert (error.path, error.where, error.hint) == ("a.pb", "node 'x'", "convert it again")
    assert error.message == "expected 1, found 2"


@pytest.mark.parametrize("cls", CLASSES)
def test_message_alone(cls):
    assert str(cls("it is wrong")) == "it is wrong"


def test_problems_are_listed_and_cut():
    error = errors.StructureError("23 problems", problems=[f"problem {index}" for index in range(23)])
    lines = str(error).splitlines()
    assert lines[:2] == ["23 problems", "  problem 0"]
    assert lines[-1] == "  ... and 3 more"
    assert len(lines) == 22


def test_restore_error_lists_all_three_kinds():
    error = errors.RestoreError("incomplete", missing=["a"], unused=["b"], mismatched=["c: [1] against [2]"])
    assert str(error).splitlines() == ["incomplete", "  missing: a", "  unused: b", "  c: [1] against [2]"]


def test_not_found_names_near_names():
    error = errors.NotFoundError.named("tensor", "dense/kernal", ["dense/kernel", "dense/bias", "x"], path="m.index")
    assert str(error) == "m.index: no tensor 'dense/kernal'; near names: dense/kernel, dense/bias"
    assert str(errors.NotFoundError.named("node", "zzz", ["a", "b"])) == "no node 'zzz'; near names: a, b"
    assert str(errors.NotFoundError.named("node", "zzz", [])) == "no node 'zzz'; it has no node at all"


def test_errors_survive_pickling():
    error = errors.ChecksumError("mismatch", path="a", where="b", hint="c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
