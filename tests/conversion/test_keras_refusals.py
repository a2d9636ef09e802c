"""What conversions of Keras files refuse, and what they say then; no Keras is needed."""

from __future__ import annotations

import json
import sys

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_configs import layer, sequential
from tfthaw.conversion.converting import convert
from tfthaw.errors import FormatError, MissingDependencyError, RestoreError, TfthawError, UnsupportedError, UsageError
from tfthaw.formats.keras_h5 import read_keras_h5
from tfthaw.inspection import inspect
from tfthaw.serde.artifacts import open_artifact

CONFIG = sequential(layer("Dense", "d"), layer("Dense", "e", use_bias=False))
VALUES = {"d/kernel:0": (4, 3), "d/bias:0": (3,), "e/kernel:0": (3, 2)}


def write_legacy(path, config=CONFIG, version="2.15.0", values=VALUES, seed=0):
    random = np.random.default_rng(seed)
    with h5py.File(path, "w") as file:
        root = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            root = file.create_group("model_weights")
        root.attrs["layer_names"] = [b"d", b"e"]
        root.attrs["keras_version"] = version
        for name in "de":
            group = root.create_group(name)
            group.attrs["weight_names"] = [key.encode() for key in values if key.startswith(name)]
            for key, shape in values.items():
                if key.startswith(name):
                    group[key] = random.random(shape).astype("f4")
    return path


@pytest.fixture
def legacy(tmp_path):
    return write_legacy(tmp_path / "model.h5")


def values_of(path):
    with open_artifact(path) as artifact:
        return {name: tensor.numpy() for name, tensor in artifact.variables.items()}


def refused(error, source, target, **options):
    with pytest.raises(error) as caught:
        convert(source, target, **options)
    assert not target.exists()
    return caught.value


class TestLayouts:
    def test_legacy_weights_stay_legacy_but_under_the_name_that_keras_reads_otherwise(self, tmp_path, legacy):
        result = convert(legacy, tmp_path / "new.h5", to="keras-weights")
        found = read_keras_h5(str(tmp_path / "new.h5"))
        assert (found.kind, found.config, list(found.layer_weights)) == ("keras-h5", None, ["d", "e"])
        assert list(found.tensors) == ["d/d/bias:0", "d/d/kernel:0", "e/e/kernel:0"]
        assert any("layout of Keras 2" in note for note in result.notes)
        convert(legacy, tmp_path / "new.weights.h5", to="keras-weights")
        found = read_keras_h5(str(tmp_path / "new.weights.h5"))
        assert (found.kind, list(found.tensors)) == (
            "keras-weights", ["layers/dense/vars/0", "layers/dense/vars/1", "layers/dense_1/vars/0"],
        )  # fmt: skip

    def test_without_configuration_only_the_own_layout(self, tmp_path):
        source = write_legacy(tmp_path / "weights.h5", config=None)
        convert(source, tmp_path / "new.h5", to="keras-h5")
        assert (tmp_path / "new.h5").stat().st_size > 0
        error = refused(UnsupportedError, source, tmp_path / "new.weights.h5", to="keras-weights")
        assert "configuration" in str(error)
        assert "--checkpoint" in error.hint

    def test_keras_1_keeps_its_layout(self, tmp_path):
        source = write_legacy(tmp_path / "old.h5", version="1.2.2")
        convert(source, tmp_path / "new.h5", to="keras-h5")
        assert "Keras 1" in str(refused(UnsupportedError, source, tmp_path / "x.weights.h5", to="keras-weights"))

    @pytest.mark.parametrize(("version", "words"), [("2.4.0", "came with 2.12"), ("2.x", "came with 2.12")])
    def test_archives_are_not_for_every_keras(self, tmp_path, version, words):
        source = write_legacy(tmp_path / "old.h5", version=version)
        assert words in str(refused(UnsupportedError, source, tmp_path / "new.keras", to="keras-zip"))

    def test_archives_want_the_module_of_a_class(self, tmp_path):
        mine = {"class_name": "MyModel", "config": {**CONFIG["config"], "output_layers": []}}
        source = write_legacy(tmp_path / "old.h5", config=mine, version="3.1.0")
        error = refused(UnsupportedError, source, tmp_path / "new.keras", to="keras-zip")
        assert "'MyModel'" in str(error)

    def test_names_of_no_layout(self, tmp_path, legacy):
        save_file({"w": np.zeros((4, 3), "f4")}, tmp_path / "x.safetensors")
        error = refused(UnsupportedError, tmp_path / "x.safetensors", tmp_path / "new", to="keras-h5")
        assert "--checkpoint" in error.hint
        error = refused(UnsupportedError, legacy, tmp_path / "new", to="keras-h5",
                        checkpoint=str(tmp_path / "x.safetensors"))  # fmt: skip
        assert "a map says it" in error.hint

    def test_plain_names_of_the_new_layout_need_nothing_more(self, tmp_path):
        np.savez(tmp_path / "x.npz", **{"layers/dense/vars/0": np.ones(2, "f4")})
        convert(tmp_path / "x.npz", tmp_path / "new.weights.h5", to="keras-weights")
        assert list(read_keras_h5(str(tmp_path / "new.weights.h5")).tensors) == ["layers/dense/vars/0"]


class TestValues:
    def test_another_architecture(self, tmp_path, legacy):
        other = write_legacy(tmp_path / "other.h5", values={**VALUES, "d/kernel:0": (5, 3)})
        error = refused(RestoreError, legacy, tmp_path / "new.h5", to="keras-h5", checkpoint=str(other))
        assert error.mismatched == ("model_weights/d/d/kernel:0: float32[4, 3], the value "
                                    "model_weights/d/d/kernel:0 has float32[5, 3]",)  # fmt: skip

    def test_missing_and_unused_and_how_to_excuse_them(self, tmp_path, legacy):
        less = {name: shape for name, shape in VALUES.items() if name != "d/bias:0"}
        other = write_legacy(tmp_path / "other.h5", values={**less, "e/extra:0": (1,)}, seed=1)
        options = {"to": "keras-h5", "checkpoint": str(other)}
        error = refused(RestoreError, legacy, tmp_path / "new.h5", **options)
        assert error.missing == ("model_weights/d/d/bias:0",)
        assert error.unused == ("model_weights/e/e/extra:0",)
        result = convert(legacy, tmp_path / "new.h5", allow_missing=["*bias:0"],
                         allow_unused=["*extra*"], **options)  # fmt: skip
        assert any("kept the source's values: model_weights/d/d/bias:0" in note for note in result.notes)
        assert any("not used: model_weights/e/e/extra:0" in note for note in result.notes)
        found, before, values = (values_of(path) for path in (tmp_path / "new.h5", legacy, other))
        for name, expected in (("d/d/bias:0", before), ("d/d/kernel:0", values)):
            np.testing.assert_array_equal(found[f"model_weights/{name}"], expected[f"model_weights/{name}"])

    def test_a_map_may_say_it_all(self, tmp_path, legacy):
        save_file({f"t{place}": np.full(shape, place, "f4") for place, shape in enumerate(VALUES.values())},
                  tmp_path / "x.safetensors")  # fmt: skip
        said = {f"t{place}": f"model_weights/{name[0]}/{name}" for place, name in enumerate(VALUES)}
        options = {"to": "keras-h5", "checkpoint": str(tmp_path / "x.safetensors")}
        convert(legacy, tmp_path / "new.h5", map=said, **options)
        with open_artifact(tmp_path / "new.h5") as artifact:
            assert artifact.variables["model_weights/e/e/kernel:0"].numpy().tolist() == [[2, 2]] * 3
        error = refused(RestoreError, legacy, tmp_path / "x.h5", map={**said, "no": "model_weights/x"}, **options)
        assert error.missing == ("no", "model_weights/x")

    def test_a_map_without_other_values_renames(self, tmp_path):
        np.savez(tmp_path / "x.npz", a=np.ones(2, "f4"), b=np.zeros(1, "f4"))
        names = {"a": "layers/dense/vars/0", "b": "layers/dense/vars/1"}
        convert(tmp_path / "x.npz", tmp_path / "new.weights.h5", to="keras-weights", map=names)
        assert sorted(read_keras_h5(str(tmp_path / "new.weights.h5")).tensors) == list(names.values())
        target = tmp_path / "y.weights.h5"
        refused(RestoreError, tmp_path / "x.npz", target, to="keras-weights", map={"no": "x"})
        refused(UsageError, tmp_path / "x.npz", target, to="keras-weights", map={"a": "x", "b": "x"})

    def test_names_that_speak_against_the_order(self, tmp_path):
        turned = {"d/bias:0": (3,), "d/kernel:0": (4, 3), "e/kernel:0": (3, 2)}
        source = write_legacy(tmp_path / "x.h5", values=turned)
        error = refused(RestoreError, source, tmp_path / "new.weights.h5", to="keras-weights")
        assert "d/bias:0 is in its place" in str(error)


class TestOptions:
    @pytest.mark.parametrize("options", [
        {"to": "keras-h5", "ema": "use"}, {"to": "keras-h5", "dtype": "float16"}, {"to": "keras-h5", "outputs": ["x"]},
        {"to": "keras-h5", "keys": "objects"}, {"to": "npz", "keys": "names"}, {"to": "checkpoint", "keys": "paths"},
    ])  # fmt: skip
    def test_what_means_nothing_here(self, tmp_path, legacy, options):
        refused(UsageError, legacy, tmp_path / "new", **options)

    def test_nothing_is_overwritten_unasked(self, tmp_path, legacy):
        (tmp_path / "new.h5").write_bytes(b"mine")
        with pytest.raises(TfthawError, match="--overwrite"):
            convert(legacy, tmp_path / "new.h5", to="keras-h5")
        assert (tmp_path / "new.h5").read_bytes() == b"mine"

    def test_nothing_is_left_beside_it(self, tmp_path, legacy):
        convert(legacy, tmp_path / "new.h5", to="keras-h5")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["model.h5", "new.h5"]

    def test_without_h5py(self, tmp_path, monkeypatch):
        np.savez(tmp_path / "x.npz", **{"layers/dense/vars/0": np.ones(2, "f4")})
        monkeypatch.setitem(sys.modules, "h5py", None)
        error = refused(MissingDependencyError, tmp_path / "x.npz", tmp_path / "new", to="keras-weights")
        assert "pip install" in error.hint


class TestDamage:
    def test_a_truncated_source(self, tmp_path, legacy):
        data = legacy.read_bytes()
        for end in range(0, len(data), 401):
            (tmp_path / "cut.h5").write_bytes(data[:end])
            refused(TfthawError, tmp_path / "cut.h5", tmp_path / "new.h5", to="keras-h5")

    @pytest.mark.parametrize("text", [
        "no JSON", "[]", "{}", '{"layout": "objects", "attributes": {}}', '{"layout": "saved", "attributes": {"": 3}}',
        '{"layout": "saved", "attributes": {"": {"x": [1]}}}',
        '{"layout": "saved", "attributes": {}, "config.json": 3}',
        '{"layout": "saved", "attributes": {}, "metadata.json": []}',
        '{"layout": "legacy", "attributes": {"": {"model_config": "x"}}}',
    ])  # fmt: skip
    def test_a_structure_in_safetensors_that_is_none(self, tmp_path, text):
        save_file({"a": np.ones(1, "f4")}, tmp_path / "x.safetensors", metadata={"tfthaw.keras": text})
        refused(FormatError, tmp_path / "x.safetensors", tmp_path / "new", to="keras-h5")

    def test_a_structure_whose_tensors_are_gone(self, tmp_path, legacy):
        convert(legacy, tmp_path / "x.safetensors", to="safetensors", allow_unused=["*bias*"],
                map={f"model_weights/{name[0]}/{name}": f"model_weights/{name[0]}/{name}" for name in VALUES
                     if "bias" not in name})  # fmt: skip
        with open_artifact(tmp_path / "x.safetensors") as artifact:
            assert len(artifact.variables) == 2
        refused(UnsupportedError, tmp_path / "x.safetensors", tmp_path / "new", to="keras-h5")


def test_inspection_says_what_a_file_can_become(tmp_path, legacy):
    with open_artifact(legacy) as artifact:
        report = inspect(artifact)
    assert {"keras-h5", "keras-weights", "keras-zip"} <= set(report.can_become)
    with open_artifact(write_legacy(tmp_path / "w.h5", config=None)) as artifact:
        report = inspect(artifact)
    (missing,) = [item for item in report.cannot_become if item["format"] == "keras-zip"]
    assert "configuration" in missing["missing"]
    assert "--checkpoint" in missing["cure"]
    np.savez(tmp_path / "x.npz", w=np.ones(2, "f4"))
    with open_artifact(tmp_path / "x.npz") as artifact:
        assert not any("keras" in name for name in inspect(artifact).can_become)
