"""The flags of `tfthaw export-inference-graph`, in all their spellings. No TensorFlow."""

import argparse
import json
import re
from pathlib import Path

import numpy as np
import pytest

from graphs import constant, node, variable
from tfthaw.cli import export_inference_graph as command
from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.export.delivery import Delivery
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.model import Model
from tfthaw.tensors import ArrayTensor

NEEDED = ("--pipeline_config_path=p", "--output_directory", "o", "--trained_checkpoint_prefix", "c")


def read(*arguments, needed=NEEDED):
    """Return the options that arguments say."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    command.add_arguments(parser)
    return command.read_options(parser.parse_args([*needed, *arguments]))


@pytest.fixture
def trained(tmp_path):
    """A training run of one variable: a queue, a convolution, an output."""
    types = AttrList("type", [DType.float32])
    batch = node("batch", "QueueDequeueV2", "fifo", T=None, component_types=types)
    batch.attrs["_output_shapes"] = AttrList("shape", [Shape((None, None, None, 3))])
    nodes = [
        node("fifo", "FIFOQueueV2", T=None, component_types=types), constant("file", b""),
        node("image", "DecodePng", "file", T=None, dtype=DType.uint8),
        node("floats", "Cast", "image", T=None, SrcT=DType.uint8, DstT=DType.float32),
        node("fill", "QueueEnqueueV2", "fifo", "floats", T=None), batch, variable("w", (1, 1, 3, 3)),
        node("w/read", "Identity", "w"),
        node("conv", "Conv2D", "batch", "w/read", strides=AttrList("i", [1, 1, 1, 1]), padding=b"SAME"),
        node("detection_boxes", "Identity", "conv"),
    ]  # fmt: skip
    values = {"w": ArrayTensor(np.ones((1, 1, 3, 3), np.float32))}
    write_meta_graph(Model(Graph(nodes, versions=Versions(1087))), values, tmp_path / "model.ckpt.meta", Delivery())
    (tmp_path / "pipeline.config").write_text("eval_config { num_examples: 3 }")
    return tmp_path


def test_what_nobody_says_is_as_in_the_scripts():
    options = read()
    assert (options.pipeline_config_path, options.output_directory) == ("p", "o")
    assert (options.trained_checkpoint_prefix, options.trained_checkpoint_dir) == ("c", None)
    assert (options.input_type, options.input_shape, options.config_override) == ("image_tensor", None, "")
    assert (options.write_inference_graph, options.additional_output_tensor_names) == (False, [])
    assert (options.batch_norm, options.overwrite, options.verify) == ("inference", False, None)


@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (["--write_inference_graph"], True), (["--write_inference_graph=true"], True),
        (["--write_inference_graph", "True"], True), (["-write_inference_graph"], True),
        (["--write-inference-graph", "1"], True), (["--nowrite_inference_graph"], False),
        (["--write_inference_graph=False"], False), (["--write_inference_graph", "--nowrite_inference_graph"], False),
        (["-nowrite_inference_graph"], False),
    ],
)  # fmt: skip
def test_switches(arguments, written):
    assert read(*arguments).write_inference_graph is written


@pytest.mark.parametrize("spelled", ["--input_shape=-1,None,300,3", "--input-shape=-1,-1,300,3"])
def test_shapes_may_begin_with_a_dash(spelled):
    assert read(spelled).input_shape == (None, None, 300, 3)
    assert read("-input_shape", "-1,300,300,3").input_shape == (None, 300, 300, 3)
    assert read("--input_shape", "1,300,300,3").input_shape == (1, 300, 300, 3)


def test_lists_and_settings():
    options = read(
        "--additional_output_tensor_names", "a, b/c:1,", "--output_tensors=x=y:0,z", "--set", "train=False", "--set",
        "rate=0.5", "--set=name=text", "--allow_missing", "a*", "--allow-missing=b",
    )  # fmt: skip
    assert options.additional_output_tensor_names == ["a", "b/c:1"]
    assert options.output_tensors == ["x=y:0", "z"]
    assert options.set == {"train": False, "rate": 0.5, "name": "text"}
    assert options.allow_missing == ["a*", "b"]


def test_flags_of_every_absl_script_change_nothing():
    assert read("--alsologtostderr", "--verbosity=1", "--nologtostderr", "--stderrthreshold", "info") == read()


def test_side_inputs_declare_what_code_takes():
    arguments = ["--side_input_names=ctx,n", "--side_input_types", "float,integer", "--side_input_shapes=1,-1/1"]
    assert read("--use_side_inputs", "True", *arguments).input == ["ctx:float32[1,?]", "n:int32[1]"]
    assert read(*arguments, "--nouse_side_inputs").input == []
    with pytest.raises(UsageError, match="have 2 names, 1 types and 2 shapes"):
        read("--use_side_inputs", arguments[0], "--side_input_types=float", arguments[3])
    with pytest.raises(UsageError, match="'double' in --side_input_types is none of"):
        read("--use_side_inputs", arguments[0], "--side_input_types=float,double", arguments[3])


def test_what_the_scripts_require_is_required(run):
    status, out, err = run("export-inference-graph")
    assert (status, out) == (2, "")
    assert "--pipeline_config_path and --output_directory must be given" in err
    status, _, err = run("export-inference-graph", "--pipeline_config_path=p", "--output_directory=o")
    assert status == 2
    assert "--trained_checkpoint_prefix" in err
    assert "--trained_checkpoint_dir" in err


@pytest.mark.parametrize("wrong", [["--write_inference_graph=maybe"], ["--set", "x"], ["--batch_norm", "perhaps"]])
def test_bad_flags_are_one_message(run, wrong):
    status, out, err = run("export-inference-graph", *NEEDED, *wrong)
    assert (status, out) == (2, "")
    assert err.startswith("tfthaw: ")


def test_the_screen(run, trained):
    arguments = [
        "export-inference-graph", "--pipeline_config_path", trained / "pipeline.config", "--trained_checkpoint_prefix",
        trained / "model.ckpt", "--verify=weights", "--write_inference_graph",
    ]  # fmt: skip
    status, out, err = run(*arguments, "--output_directory", trained / "a")
    assert (status, err) == (0, "")
    for said in ("frozen_inference_graph.pb", "inference_graph.pbtxt", "saved_model/saved_model.pb",
                 "inputs -> image_tensor:0", "detection_boxes -> detection_boxes:0", "weights: proved, 1 tensors",
                 "only the weights were asked for", "batch:0 (float32[?, ?, ?, 3])"):  # fmt: skip
        assert said in out
    status, out, _ = run(*arguments, "--output_directory", trained / "b", "--json")
    document = json.loads(out)
    assert status == 0
    assert document["layout"] == "export_inference_graph"
    assert document["verified"]["weights"] == {"compared": 1, "bytes": 36, "different": 0}
    assert sorted(document["files"]) == document["files"]
    assert document["bytes"] == sum(path.stat().st_size for path in (trained / "b").rglob("*") if path.is_file())


def test_the_page_names_every_flag_and_no_other():
    page = (Path(__file__).parents[2] / "docs" / "export-inference-graph.md").read_text(encoding="utf-8")
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    known = {text for action in parser._actions for text in action.option_strings} | {"--json"}
    shown = {action.option_strings[0] for action in parser._actions if action.help != argparse.SUPPRESS} - {"-h"}
    named = set(re.findall(r"--[a-z][a-z_0-9]+", page)) - {"--flag", "--noflag", "--outputs"}
    assert named <= known
    assert shown <= named
