"""Input pipelines: where they end, and graphs that are cut there."""

import numpy as np
import pytest

from graphs import by_name, constant, graph, node, placeholder, variable
from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.ir.attrs import AttrList, FunctionName, Shape
from tfthaw.ir.graph import GraphIndex, TensorName
from tfthaw.passes.cut_inputs import cut_input
from tfthaw.passes.input_boundary import boundary_at, find_boundaries, pipeline_nodes
from tfthaw.passes.written_sizes import arrays_of_batch, has_functions_on, nodes_of_batch, takes_any_size

BATCH = TensorName("batch", 0)
OUT = TensorName("out", 0)


def shaped(found, *dims):
    """Return a node that says the shape of its first output."""
    found.attrs["_output_shapes"] = AttrList("shape", [Shape(tuple(dims) if dims != ("?",) else None)])
    return found


def queue(*dims, dtype=DType.float32, many=True):
    """Return a queue, what fills it, and what takes a batch out of it."""
    op = "QueueDequeueManyV2" if many else "QueueDequeueV2"
    types = AttrList("type", [dtype, DType.int64])
    dequeue = node("batch", op, "fifo", *(["n"] if many else []), T=None, component_types=types)
    return [
        node("fifo", "FIFOQueueV2", T=None),
        node("files", "ReadFile", "name", T=None),
        constant("name", b"a.png"),
        node("image", "DecodePng", "files", T=None, dtype=DType.uint8),
        node("enqueue", "QueueEnqueueV2", "fifo", "image", T=None),
        constant("n", 2),
        shaped(dequeue, *dims),
    ]


def test_the_last_queue_in_front_of_the_outputs_is_where_the_pipeline_ends():
    found = graph(*queue(2, None, None, 3), node("conv", "Relu", "batch"), node("out", "Relu", "conv"))
    (boundary,) = find_boundaries(GraphIndex(found.nodes), [OUT])
    assert boundary.tensor == BATCH
    assert (boundary.op, boundary.dtype) == ("QueueDequeueManyV2", DType.float32)
    assert boundary.shape.dims == (2, None, None, 3)
    assert boundary.may_be_images


def test_labels_and_placeholders_are_boundaries_that_are_no_images():
    found = graph(
        *queue(2, None, None, 3), placeholder("training", (), DType.bool), placeholder("anything", None),
        node("out", "Foo", "batch", "batch:1", "training", "anything", T=None),
    )  # fmt: skip
    boundaries = {str(item.tensor): item for item in find_boundaries(GraphIndex(found.nodes), [OUT])}
    assert {name: item.may_be_images for name, item in boundaries.items()} == {
        "batch:0": True, "batch:1": True, "training:0": False, "anything:0": True,
    }  # fmt: skip
    assert boundaries["batch:1"].shape.dims is None


def test_a_single_image_counts_as_the_batch_that_it_is_made():
    single = queue(None, None, 3, many=False)
    axis = constant("axis", 0)
    one = shaped(node("one", "ExpandDims", "batch", "axis"), 1, None, None, 3)
    found = graph(*single, axis, one, node("out", "Relu", "one"))
    (boundary,) = find_boundaries(GraphIndex(found.nodes), [OUT])
    assert boundary.tensor == TensorName("one", 0)
    changed = graph(*single, axis, node("half", "Mul", "batch", "batch"),
                    shaped(node("one", "ExpandDims", "half", "axis"), 1, None, None, 3),
                    node("out", "Relu", "one"))  # fmt: skip
    (boundary,) = find_boundaries(GraphIndex(changed.nodes), [OUT])
    assert boundary.tensor == BATCH
    assert not boundary.may_be_images


def _cut(found, *nodes, outputs=(OUT,), at=BATCH):
    new = [placeholder("image_tensor", (None, None, None, 3), DType.uint8), *nodes]
    return cut_input(found, at, TensorName(new[-1].name, 0), new, outputs)


def test_what_took_the_tensor_takes_another_one():
    found = graph(*queue(2, 8, 8, 3), shaped(node("conv", "Relu", "batch"), 2, 8, 8, 3),
                  node("label", "Relu", "batch:1"), node("out", "Relu", "conv", "^batch"))  # fmt: skip
    before = [(item.name, list(item.inputs)) for item in found.nodes]
    nodes = by_name(_cut(found).graph)
    assert nodes["conv"].inputs == ["image_tensor"]
    assert nodes["out"].inputs == ["conv", "^image_tensor"]
    assert nodes["label"].inputs == ["batch:1"]
    assert "_output_shapes" not in nodes["conv"].attrs
    assert [(item.name, list(item.inputs)) for item in found.nodes] == before
    assert not pipeline_nodes(GraphIndex(nodes.values()), ["out"], through_control=True)


def test_nothing_waits_for_the_pipeline():
    found = graph(
        *queue(2, 8, 8, 3), node("check", "Assert", "batch:1", T=None), node("conv", "Relu", "batch"),
        node("out", "Relu", "conv", "^check", "^enqueue"), node("train", "NoOp", "^check", T=None),
    )  # fmt: skip
    cut = _cut(found)
    assert by_name(cut.graph)["out"].inputs == ["conv"]
    assert set(cut.waits) == {"check", "enqueue"}
    assert by_name(cut.graph)["train"].inputs == ["^check"]


def test_a_node_whose_name_is_wanted_goes_unless_it_is_needed():
    found = graph(*queue(2, 8, 8, 3), node("image_tensor", "Relu", "batch:1"), node("out", "Relu", "batch"))
    assert by_name(_cut(found).graph)["image_tensor"].op == "Placeholder"
    found = graph(*queue(2, 8, 8, 3), node("image_tensor", "Relu", "batch"), node("out", "Relu", "image_tensor"))
    with pytest.raises(UsageError, match=r"image_tensor is wanted .* a node \(Relu\) has it"):
        _cut(found)


def test_sizes_that_a_graph_has_written_in():
    anchors = constant("anchors", np.zeros((2, 4), np.float32))
    cases = {
        "split": [node("split", "Unpack", "batch", num=2, axis=0)],
        "shape": [constant("to", [2, -1]), node("shape", "Reshape", "batch", "to", Tshape=DType.int32)],
        "tiled": [anchors, node("tiled", "AddV2", "batch", "anchors")],
    }
    for name, nodes in cases.items():
        index = GraphIndex([*queue(2, 8, 8, 3), *nodes, node("out", "Relu", name)])
        assert nodes_of_batch(index, BATCH, [OUT], 2) == [name]
        assert nodes_of_batch(index, BATCH, [OUT], 5) == []
        assert nodes_of_batch(index, BATCH, [TensorName("n", 0)], 2) == []
    index = GraphIndex([*queue(2, 8, 8, 3), node("loop", "While", "batch", T=None, body=FunctionName("f")),
                        node("out", "Relu", "loop")])  # fmt: skip
    assert has_functions_on(index, BATCH, [OUT]) == ["loop"]


def test_what_a_graph_says_of_a_tensor():
    index = GraphIndex(graph(placeholder("x", (None, 3)), constant("c", [[1, 2]]), node("y", "Foo", "x")).nodes)
    assert boundary_at(index, TensorName("x", 0)).shape.dims == (None, 3)
    assert boundary_at(index, TensorName("c", 0)).shape.dims == (1, 2)
    assert boundary_at(index, TensorName("y", 0)).dtype is None
    assert boundary_at(index, TensorName("y", 0)).shape.dims is None


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ([constant("i", [0]), constant("end", [1]),
          node("row", "StridedSlice", "batch", "i", "end", "end", begin_mask=0, end_mask=0)], ["row"]),
        ([constant("i", [0, 0]), constant("end", [0, 1]),
          node("row", "StridedSlice", "batch", "i", "end", "end", begin_mask=1, end_mask=1, shrink_axis_mask=2)], []),
        ([constant("i", [0, 1]), constant("axis", 0), node("row", "GatherV2", "batch", "i", "axis")], ["row"]),
        ([constant("i", [0, 1]), constant("axis", 1), node("row", "GatherV2", "batch", "i", "axis")], []),
        ([node("size", "Shape", "batch"), constant("i", [0]), constant("end", [1]),
          node("row", "StridedSlice", "size", "i", "end", "end", begin_mask=0, end_mask=0, shrink_axis_mask=1)], []),
        ([node("one", "TensorArrayScatterV3", "array", "i", "batch"), constant("i", [0]), constant("end", [1]),
          node("row", "StridedSlice", "one", "i", "end", "end", begin_mask=0, end_mask=0, shrink_axis_mask=1)], []),
        ([constant("by", [2, 1]), constant("anchor", [[1.0]]), node("tiled", "Tile", "anchor", "by"),
          node("row", "Add", "batch", "tiled")], ["tiled"]),
        ([constant("boxes", [[0.0] * 4] * 2), constant("whose", [0, 1]),
          node("row", "CropAndResize", "batch", "boxes", "whose")], ["row"]),
        ([constant("sizes", [2, 8, 8, 3]), constant("at", [0]), node("size", "StridedSlice", "sizes", "at", "at", "at"),
          constant("rest", 4), node("to", "Pack", "size", "rest", T=DType.int32, N=2), constant("from", [0, 0]),
          node("row", "Slice", "batch", "from", "to")], ["row"]),
        ([constant("row", [5.0, 5.0])], ["out"]),
        ([constant("row", [5.0, 5.0, 5.0])], []),
        ([constant("row", 5.0)], []),
        ([variable("v", (2,)), node("row", "Identity", "v")], ["out"]),
        ([variable("v", (3,)), node("row", "Identity", "v")], []),
        ([node("ones", "RandomUniform", "v"), constant("v", [3]), node("row", "Identity", "ones")], ["out"]),
    ],
)  # fmt: skip
def test_images_that_are_picked_by_number_and_outputs_that_none_of_them_changes(nodes, found):
    index = GraphIndex([*queue(2, 8, 8, 3), *nodes, node("out", "Identity", "row")])
    assert nodes_of_batch(index, BATCH, [OUT], 2) == found


def test_arrays_of_loops_that_have_room_for_one_batch():
    nodes = [*queue(2, 8, 8, 3), constant("four", 4), node("own", "TensorArrayV3", "n", T=None),
             node("other", "TensorArrayV3", "four", T=None), node("idle", "TensorArrayV3", "n", T=None),
             node("out", "Foo", "batch", "own", "other", T=None)]  # fmt: skip
    assert arrays_of_batch(GraphIndex(nodes), BATCH, [OUT], 2) == ["own"]
    assert arrays_of_batch(GraphIndex(nodes), BATCH, [OUT], 3) == []


def test_a_size_that_is_put_together():
    shape = [constant("two", 2), constant("rest", -1), node("to", "Pack", "two", "rest", T=DType.int32, N=2),
             node("flat", "Reshape", "batch", "to")]  # fmt: skip
    index = GraphIndex([*queue(2, 8, 8, 3), *shape, node("out", "Relu", "flat")])
    assert nodes_of_batch(index, BATCH, [OUT], 2) == ["flat"]


def test_graphs_that_resize_all_that_they_take():
    resize = [node("scaled", "Mul", "batch", "half"), constant("half", 0.5), constant("size", [4, 4]),
              node("small", "ResizeBilinear", "scaled", "size", T=DType.float32)]  # fmt: skip
    fixed = [constant("to", [-1, 8, 8, 3]), node("flat", "Reshape", "batch", "to")]
    cases = [
        ([*resize, node("out", "Relu", "small")], True),
        ([*resize, node("sizes", "Shape", "batch"), node("out", "Foo", "small", "sizes")], True),
        ([*resize, node("out", "Add", "small", "scaled")], False),
        ([node("out", "Relu", "batch")], False),
        ([*fixed, node("small", "ResizeBilinear", "flat", "to"), node("out", "Relu", "small")], False),
        ([node("conv", "Conv2D", "batch", "w"), constant("size", [4, 4]),
          node("small", "ResizeBilinear", "conv", "size", T=DType.float32), node("out", "Relu", "small")], False),
        ([node("crops", "CropAndResize", "batch", "boxes"), node("out", "Relu", "crops")], False),
        ([constant("from", [0, 1, 1, 0]), constant("to", [-1, 4, 4, 3]), node("crop", "Slice", "batch", "from", "to"),
          constant("size", [4, 4]), node("small", "ResizeBilinear", "crop", "size", T=DType.float32),
          node("out", "Relu", "small")], False),
        ([node("loop", "While", "batch", T=None, body=FunctionName("f")), node("out", "Relu", "loop")], False),
    ]
    for nodes, expected in cases:
        assert takes_any_size(GraphIndex([*queue(2, 8, 8, 3), *nodes]), BATCH, [OUT]) is expected
