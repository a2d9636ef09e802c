"""`tfthaw convert`, on the demo model: every pair of formats, and what each option does."""

import json

import numpy as np
import pytest

import tfthaw

OUTPUTS = ("--outputs", "probabilities", "--verify", "weights")
GRAPH_FORMATS = ("frozen-graph", "graph-def", "meta-graph", "saved-model")
WEIGHT_FORMATS = ("checkpoint", "safetensors", "npz")
FILE = {
    "frozen-graph": "x.pb",
    "graph-def": "x.pb",
    "meta-graph": "x.meta",
    "saved-model": "x",
    "checkpoint": "x",
    "safetensors": "x.safetensors",
    "npz": "x.npz",
}


@pytest.fixture
def convert(run, demo, tmp_path):
    """Convert the demo model, or what is given, and return the JSON result."""

    def convert(*options, to, source=None, folder="out", status=0):
        target = tmp_path / folder / FILE[to]
        source = demo / "model.ckpt-1000.meta" if source is None else source
        ended, out, err = run("convert", source, target, "--to", to, "--json", *options)
        assert ended == status, err
        return json.loads(out) if status == 0 else err

    return convert


@pytest.mark.parametrize("to", GRAPH_FORMATS)
def test_into_every_graph_format(to, convert, run):
    result = convert(*OUTPUTS, to=to)
    assert result["format"] == to
    assert result["outputs"] == {"probabilities": "probabilities:0"}
    assert result["verified"]["weights"]["different"] == 0
    assert json.loads(run("inspect", result["path"], "--json")[1])["format"] == to


@pytest.mark.parametrize("middle", WEIGHT_FORMATS)
@pytest.mark.parametrize("last", WEIGHT_FORMATS)
def test_weights_survive_two_conversions(middle, last, convert, demo, run):
    first = convert("--optimizer", "keep", to=middle)
    second = convert("--optimizer", "keep", to=last, source=first["path"], folder="again")
    assert first["variables"] == second["variables"] == 37
    assert run("diff", demo / "model.ckpt-1000", second["path"])[0] == 0


@pytest.mark.parametrize("middle", ["meta-graph", "saved-model"])
@pytest.mark.parametrize("last", GRAPH_FORMATS)
def test_graphs_survive_two_conversions(middle, last, convert):
    first = convert(*OUTPUTS, to=middle)
    second = convert("--verify", "weights", to=last, source=first["path"], folder="again")
    assert second["outputs"] == {"probabilities": "probabilities:0"}
    assert second["verified"]["weights"]["different"] == 0


def test_set_takes_a_placeholder_out_of_the_inputs(convert):
    result = convert(*OUTPUTS, "--set", "is_training=false", to="frozen-graph")
    assert list(result["inputs"]) == ["images:0"]
    assert any("is_training=False" in note for note in result["notes"])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("gone=1", "no placeholder 'gone'"),
        ("is_training=7", "does not fit bool"),
        ("probabilities=1", "not a placeholder"),
    ],
)
def test_settings_that_do_not_fit(setting, message, convert):
    assert message in convert(*OUTPUTS, "--set", setting, to="frozen-graph", status=2)


class TestMap:
    def test_renames(self, convert, tmp_path):
        path = tmp_path / "map.toml"
        path.write_text('[map]\n"conv1/kernel" = "first"\n', encoding="utf-8")
        result = convert("--map", path, "--allow-unused", "*", to="npz")
        with tfthaw.open(result["path"]) as artifact:
            assert list(artifact.variables) == ["first"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"= 1", "is no TOML"),
            (b"a = 1", "lines of the form"),
            (b"\xff", "is no TOML"),
            (b"map = 3", "lines of the form"),
        ],
    )
    def test_bad_maps(self, text, message, convert, tmp_path):
        path = tmp_path / "map.toml"
        path.write_bytes(text)
        err = convert("--map", path, to="npz", status=2)
        assert message in err
        assert str(path) in err

    def test_no_map(self, convert, tmp_path):
        assert "cannot be read" in convert("--map", tmp_path / "gone.toml", to="npz", status=2)

    def test_unknown_keys_and_keys_left_out_are_named(self, convert, tmp_path):
        path = tmp_path / "map.toml"
        path.write_text('"gone" = "x"\n', encoding="utf-8")
        err = convert("--map", path, to="npz", status=1)
        assert "missing: gone" in err
        assert "unused: conv1/kernel" in err


class TestAverages:
    @pytest.mark.parametrize(
        ("mode", "expected"),
        [
            ("keep", {"w": 1, "w/ExponentialMovingAverage": 2, "b": 3}),
            ("drop", {"w": 1, "b": 3}),
            ("use", {"w": 2, "b": 3}),
        ],
    )
    def test_use_drop_keep(self, mode, expected, convert, tmp_path):
        np.savez(tmp_path / "in.npz", **{"w": 1.0, "w/ExponentialMovingAverage": 2.0, "b": 3.0})
        result = convert("--ema", mode, to="npz", source=tmp_path / "in.npz")
        with tfthaw.open(result["path"]) as artifact:
            assert {name: float(tensor.numpy()) for name, tensor in artifact.variables.items()} == expected

    def test_averages_that_are_not_there_are_told(self, convert):
        assert "no moving averages" in convert("--ema", "use", to="npz", status=1)
        assert any("0 moving averages" in note for note in convert("--ema", "drop", to="npz")["notes"])


def test_optimizer_state_is_left_out_unless_it_is_kept(convert):
    dropped = convert(to="npz")
    kept = convert("--optimizer", "keep", to="npz", folder="kept")
    assert dropped["variables"] < kept["variables"] == 37
    assert any("optimizer" in note for note in dropped["notes"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_casts_floating_weights(dtype, convert):
    result = convert("--dtype", dtype, to="safetensors")
    with tfthaw.open(result["path"]) as artifact:
        names = {tensor.dtype.name for name, tensor in artifact.variables.items() if "kernel" in name}
    assert names == {dtype}


def test_a_cast_that_would_lose_values_is_refused(convert, tmp_path):
    np.savez(tmp_path / "large.npz", w=np.array([1e6], np.float32))
    err = convert("--dtype", "float16", to="safetensors", source=tmp_path / "large.npz", status=2)
    assert "1 values are beyond the range of float16" in err
    assert "'w'" in err


def test_dtype_is_for_weights(convert):
    assert "--dtype casts" in convert(*OUTPUTS, "--dtype", "float16", to="frozen-graph", status=2)


def test_list_outputs_ranks_the_right_one_first(run, demo):
    status, out, _ = run("convert", demo / "model.ckpt-1000.meta", "--list-outputs", "--json")
    assert status == 0
    assert json.loads(out)[0]["tensor"] == "probabilities:0"
    assert "probabilities:0" in run("convert", demo / "model.ckpt-1000.meta", "--list-outputs")[1]


def test_without_destination_or_format(run, demo):
    for arguments in (
        (demo / "model.ckpt-1000",),
        (demo / "model.ckpt-1000", "x"),
        (demo / "model.ckpt-1000", "--to", "npz"),
    ):
        status, out, err = run("convert", *arguments)
        assert (status, out) == (2, "")
        assert "DST and --to" in err


def test_allow_missing_names_what_may_stay_empty(convert, demo, tmp_path):
    with tfthaw.open(demo / "model.ckpt-1000") as artifact:
        rest = {name: tensor.numpy() for name, tensor in artifact.variables.items() if name != "conv1/kernel"}
    np.savez(tmp_path / "rest.npz", **rest)
    options = (*OUTPUTS, "--checkpoint", tmp_path / "rest.npz")
    assert "missing: conv1/kernel" in convert(*options, to="saved-model", status=1)
    assert "missing: conv1/kernel" in convert(*options, "--allow-missing", "conv2/*", to="saved-model", status=1)
    result = convert(*options, "--allow-missing", "conv1/k*", "--style", "v1", to="saved-model")
    assert any("conv1/kernel" in note for note in result["notes"])


def test_no_outputs_are_guessed(convert):
    err = convert(to="frozen-graph", status=2)
    assert "likely ones: probabilities:0" in err
