"""Loading the user's code by `MODULE:CALLABLE`."""

import os
import pickle
import sys

import pytest

from tfthaw.errors import MissingDependencyError, NotFoundError, RuntimeFailure, UsageError
from tfthaw.runtime.user_code import check_spec, load_code


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A current directory of its own; what is imported from it is forgotten."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


class TestWhatIsNamed:
    def test_a_function_of_a_file(self, folder):
        write(folder, train="def build(): return 7")
        code = load_code("./train.py:build")
        assert code.target() == 7
        assert code.path == str(folder / "train.py")

    def test_a_function_of_a_module(self, folder):
        write(folder, train="def build(): return 7")
        assert load_code("train:build").target() == 7

    def test_a_file_and_its_module_are_one(self, folder):
        write(folder, train="count = []\ncount.append(1)\ndef build(): return count")
        assert load_code("train.py:build").target is load_code("train:build").target
        assert load_code(f"{folder}/train.py:count").target == [1]

    def test_a_method_of_a_class(self, folder):
        write(folder, train="class Net:\n  class Inner:\n    @staticmethod\n    def make(): return 3")
        assert load_code("train:Net.Inner.make").target() == 3

    def test_a_value(self, folder):
        write(folder, train="model = [1, 2]")
        assert load_code("train.py:model").target == [1, 2]

    def test_a_path_with_a_colon_and_a_space(self, folder):
        (folder / "C:x y").mkdir()
        write(folder / "C:x y", train="def build(): return 7")
        assert load_code("C:x y/train.py:build").target() == 7

    def test_a_file_whose_name_is_no_identifier(self, folder):
        write(folder, **{"my-model": "import pickle\nclass A: pass\nback = pickle.loads(pickle.dumps(A()))"})
        assert type(load_code("my-model.py:back").target).__name__ == "A"

    def test_a_file_with_the_name_of_a_module_that_is_there(self, folder):
        write(folder, json="def build(): return 'mine'")
        assert load_code("./json.py:build").target() == "mine"
        assert sys.modules["json"].dumps([1]) == "[1]"


class TestHowItRuns:
    def test_not_as_main_and_with_the_arguments_of_a_script(self, folder):
        write(folder, train="import sys\nname, arguments = __name__, sys.argv\nif name == '__main__': 1 / 0")
        before = sys.argv
        assert load_code("train.py:name").target == "train"
        assert load_code("train.py:arguments").target == [str(folder / "train.py")]
        assert sys.argv is before

    def test_modules_beside_it_are_found_now_and_when_it_is_called(self, folder):
        write(folder, train="import layers\ndef build():\n  import losses\n  return layers.a + losses.b",
              layers="a = 1", losses="b = 2")  # fmt: skip
        path = list(sys.path)
        code = load_code("train.py:build")
        assert sys.path == path
        with code.running():
            assert code.target() == 3
        assert sys.path == path

    def test_a_file_of_a_package_has_its_relative_imports(self, folder):
        inner = folder / "pack" / "inner"
        inner.mkdir(parents=True)
        for place in (folder / "pack", inner):
            (place / "__init__.py").touch()
        write(inner, train="from ..parts import a\nname = __name__\ndef build(): return a")
        write(folder / "pack", parts="a = 5")
        assert load_code("pack/inner/train.py:build").target() == 5
        assert load_code("pack/inner/train.py:name").target == "pack.inner.train"

    def test_dataclasses_and_pickle_find_the_module(self, folder):
        write(folder, train="from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\n"
              "class Config:\n  units: int = 3\nconfig = Config()")  # fmt: skip
        config = load_code("train.py:config").target
        assert pickle.loads(pickle.dumps(config)) == config

    def test_a_module_that_failed_is_tried_again(self, folder):
        write(folder, train="1 / 0")
        with pytest.raises(RuntimeFailure):
            load_code("train.py:build")
        write(folder, train="def build(): return 'mended, and of another length'")
        assert load_code("train.py:build").target().startswith("mended")


class TestWhatIsWrong:
    @pytest.mark.parametrize("load", [load_code, check_spec])
    def test_no_callable_is_named(self, folder, load):
        write(folder, train="def build(): 1\nclass Net: pass\ndef _inner(): 2")
        with pytest.raises(UsageError, match=r"train.py: it is not said which callable .* it has: build, Net$"):
            load("train.py")

    @pytest.mark.parametrize("spec", ["", "build", ":build", "train.py:", "train.py:1x", "train.py:a b", "a-b:c"])
    def test_what_is_no_spec(self, folder, spec):
        with pytest.raises((UsageError, NotFoundError)):
            load_code(spec)

    def test_a_file_that_is_not_there_names_those_that_are(self, folder):
        write(folder, train_model="", other="")
        with pytest.raises(NotFoundError, match=r"trainmodel.py: there is no such file; there are: train_model.py"):
            check_spec("trainmodel.py:build")
        with pytest.raises(NotFoundError, match="there is no folder nowhere"):
            check_spec("nowhere/train.py:build")

    def test_a_module_that_is_not_there(self, folder):
        write(folder, train_model="")
        with pytest.raises(NotFoundError, match=r"no module 'trainmodel'; near names: train_model"):
            load_code("trainmodel:build")
        with pytest.raises(NotFoundError, match=r"no module 'json.decode'; near names: json.decoder"):
            load_code("json.decode:build")

    def test_a_notebook(self, folder):
        with pytest.raises(UsageError, match="jupyter nbconvert"):
            check_spec("train.ipynb:build")

    def test_a_name_that_is_not_there_lists_near_ones(self, folder):
        write(folder, train="from json import dumps\ndef build_model(): 1\ndef other(): 2\n"
              "class Net:\n  def call(self): 3")  # fmt: skip
        with pytest.raises(NotFoundError, match=r"the module has no 'build_modle'; near names: build_model$"):
            load_code("train.py:build_modle")
        with pytest.raises(NotFoundError, match=r"the module has no 'zzz'; it has: build_model, other, Net$"):
            load_code("train.py:zzz")
        with pytest.raises(NotFoundError, match=r"Net has no 'cal'; near names: call"):
            load_code("train.py:Net.cal")

    def test_objects_that_can_be_called_are_near_too(self, folder):
        write(folder, train="from functools import partial\nmodel = partial(int, 3)")
        with pytest.raises(NotFoundError, match=r"the module has no 'modle'; near names: model$"):
            load_code("train.py:modle")

    def test_a_syntax_error_names_its_line(self, folder):
        write(folder, train="x = 1\ndef build(:\n  pass")
        with pytest.raises(UsageError, match=r"^train.py: line 2 \(`def build\(:`\): the file is not Python: "):
            load_code("train.py:build")

    def test_python_2_is_told(self, folder):
        write(folder, train="print 'hello'")
        with pytest.raises(UsageError, match="this is Python 2"):
            load_code("train.py:build")

    def test_a_module_that_raises_names_the_line_and_the_exception(self, folder):
        write(folder, train="import json\njson.loads('{')")
        with pytest.raises(RuntimeFailure, match=r"^train.py: line 2 \(`json.loads\('\{'\)`\): .*JSONDecodeError"):
            load_code("train.py:build")

    def test_the_line_may_be_in_a_file_beside_it(self, folder):
        write(folder, train="import layers", layers="def f():\n  return {}['kernel']\nf()")
        with pytest.raises(RuntimeFailure, match=r"layers.py:2 in f \(`return .*`\): .*KeyError: 'kernel'"):
            load_code("train.py:build")

    @pytest.mark.parametrize(
        ("source", "kind", "message"),
        [
            ("import tensorfow as tf", MissingDependencyError, "tensorflow may be meant"),
            ("import cPickle", UsageError, "for Python 2: it imports cPickle; in Python 3 that is pickle"),
            ("from object_detection.builders import model_builder", MissingDependencyError, "clone it"),
            ("from . import layers", UsageError, "belongs to a package.*--code package.module:NAME"),
            ("for i in xrange(3): pass", UsageError, "for Python 2; turn it into Python 3"),
            ("{}.iteritems()", UsageError, "for Python 2"),
            ("print 'hello'", UsageError, "the file is not Python: .*this is Python 2"),
            ("raise ValueError, 'no'", UsageError, "this is Python 2"),
            ("x = 0777", UsageError, "this is Python 2"),
            ("x = (1", UsageError, "the file is not Python: '\\(' was never closed$"),
            ("import json; json.laod", RuntimeFailure, "near names: load"),
        ],
    )
    def test_what_cannot_be_imported_is_told_with_what_is_meant(self, folder, source, kind, message):
        write(folder, m=source)
        with pytest.raises(kind, match=message):
            load_code("m.py:build")

    def test_files_whose_names_have_dots(self, folder):
        (folder / "my.model.py").write_text("def build(): return 3")
        assert load_code("my.model.py:build").target() == 3

    def test_a_package_that_is_not_installed(self, folder):
        write(folder, train="import tensorflow_hub_x as hub", other="import sklearn_x.tree", cv="import cv2.nothing")
        with pytest.raises(MissingDependencyError, match="pip install tensorflow_hub_x;"):
            load_code("train.py:build")
        with pytest.raises(MissingDependencyError, match=r"other.py:1 .* imports sklearn_x, .* pip install sklearn_x;"):
            load_code("other:build")
        with pytest.raises(MissingDependencyError, match="pip install opencv-python;"):
            load_code("cv.py:build")

    def test_a_module_that_ends_the_process(self, folder):
        write(folder, train="import sys\nsys.exit(3)")
        with pytest.raises(UsageError, match=r"line 2 .*sys.exit\(3\).*; put .* under `if __name__ == \"__main__\":`"):
            load_code("train.py:build")
        write(folder, needs="import argparse\np = argparse.ArgumentParser()\np.add_argument('x')\np.parse_args()")
        with pytest.raises(UsageError, match=r"line 4 \(`p.parse_args\(\)`\)"):
            load_code("needs.py:build")

    def test_the_current_directory_may_be_gone(self, folder):
        gone = folder / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        for spec in ("train.py:build", "no_such_module:build"):
            with pytest.raises(NotFoundError):
                load_code(spec)
