"""Exports for inference of damaged training runs: refused with one message, or right; nothing else."""

import contextlib
import shutil

import numpy as np
import pytest

from graphs import constant, node, variable
from tfthaw.drop_ins.inference_graph import export_inference_graph
from tfthaw.drop_ins.inference_options import InferenceOptions
from tfthaw.dtypes import DType
from tfthaw.errors import FormatError, TfthawError
from tfthaw.export.delivery import Delivery
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.formats.pipeline_config import parse_pipeline_config
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.model import Model
from tfthaw.tensors import ArrayTensor

CONFIG = "model { ssd { num_classes: 3 } }\neval_config: { use_moving_averages: false metrics_set: ['a', \"b\"] }\n"


def _graph(*others):
    types = AttrList("type", [DType.float32, DType.int64])
    batch = node("batch", "QueueDequeueManyV2", "fifo", "two", T=None, component_types=types)
    batch.attrs["_output_shapes"] = AttrList("shape", [Shape((2, None, None, 3)), Shape((2,))])
    return [
        node("fifo", "FIFOQueueV2", T=None, component_types=types), constant("two", 2), batch,
        constant("file", b""), node("image", "DecodePng", "file", T=None, dtype=DType.uint8),
        node("floats", "Cast", "image", T=None, SrcT=DType.uint8, DstT=DType.float32),
        node("fill", "QueueEnqueueV2", "fifo", "floats", "two", T=None),
        variable("w", (1, 1, 3, 3)), node("w/read", "Identity", "w"),
        node("conv", "Conv2D", "batch", "w/read", strides=AttrList("i", [1, 1, 1, 1]), padding=b"SAME"),
        node("to", "Pack", "two", "two", T=DType.int32, N=2), node("flat", "Reshape", "conv", "to"),
        node("detection_boxes", "Identity", "flat", "^batch"), *others,
    ]  # fmt: skip


@pytest.fixture
def trained(tmp_path):
    """A training run on disk."""
    values = {"w": ArrayTensor(np.ones((1, 1, 3, 3), np.float32))}
    write_meta_graph(Model(Graph(_graph(), versions=Versions(1087))), values, tmp_path / "model.ckpt.meta", Delivery())
    (tmp_path / "pipeline.config").write_text(CONFIG)
    return tmp_path


def _export(folder, **given):
    """Export; return whether it was done."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    given = {"trained_checkpoint_prefix": str(folder / "model.ckpt"), "verify": "weights"} | given
    options = InferenceOptions(str(folder / "pipeline.config"), str(folder / "out"), **given)
    with contextlib.suppress(TfthawError):
        export_inference_graph(options)
        return True
    assert not (folder / "out").exists()
    return False


def test_the_run_itself_goes_through(trained):
    assert _export(trained)


def test_flipped_bytes_of_the_graph(trained):
    path = trained / "model.ckpt.meta"
    content = path.read_bytes()
    random = np.random.default_rng(5)
    done = 0
    for _ in range(250):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), random.integers(1, 4)):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        done += _export(trained)
    assert done < 250


def test_cut_graphs(trained):
    path = trained / "model.ckpt.meta"
    content = path.read_bytes()
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        _export(trained)


@pytest.mark.parametrize(
    "others",
    [
        [node("detection_scores", "Identity", "detection_scores")],
        [node("a", "Pack", "b", N=1), node("b", "Pack", "a", N=1), node("detection_scores", "Reshape", "batch", "a")],
        [node("detection_scores", "Identity", "nothing")],
        [node("detection_scores", "Identity", "batch:7")],
        [node("detection_scores", "Foo", "batch", T=None)],
        [node("image_tensor", "Identity", "batch"), node("detection_scores", "Identity", "image_tensor")],
        [constant("image_tensor", 1), constant("image_tensor/cast", 1),
         node("detection_scores", "Add", "image_tensor", "image_tensor/cast")],
        [node("detection_boxes", "Identity", "batch")],
        [node("ring", "Identity", "ring"), node("detection_scores", "PlaceholderWithDefault", "ring")],
    ],
)  # fmt: skip
def test_graphs_that_contradict_themselves(trained, others):
    values = {"w": ArrayTensor(np.ones((1, 1, 3, 3), np.float32))}
    (trained / "checkpoint").unlink()
    write_meta_graph(Model(Graph(_graph(*others), versions=Versions(1087))), values, trained / "model.ckpt.meta",
                     Delivery(overwrite=True))  # fmt: skip
    for given in ({}, {"input_tensor": "batch:0"}, {"input_type": "tf_example"}):
        assert _export(trained, **given) in (True, False)


def test_cut_configs(trained):
    refused = 0
    for length in range(len(CONFIG)):
        with contextlib.suppress(FormatError):
            parse_pipeline_config(CONFIG[:length])
            continue
        refused += 1
    assert 40 < refused < len(CONFIG)
