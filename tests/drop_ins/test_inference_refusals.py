"""Exports for inference that must not be: each is refused with words and leaves nothing behind. No TensorFlow."""

import numpy as np
import pytest

from graphs import constant, node, placeholder, variable
from tfthaw.drop_ins.inference_graph import export_inference_graph
from tfthaw.drop_ins.inference_module import export_inference_module
from tfthaw.drop_ins.inference_options import InferenceOptions, read_input_shape
from tfthaw.dtypes import DType
from tfthaw.errors import (
    FormatError,
    NotFoundError,
    OutputExistsError,
    RestoreError,
    StructureError,
    TfthawError,
    UnsupportedError,
    UsageError,
)
from tfthaw.export.delivery import Delivery
from tfthaw.export.meta_graph import write_meta_graph
from tfthaw.export.weights import write_checkpoint
from tfthaw.ir.attrs import AttrList, Shape
from tfthaw.ir.graph import Graph, Versions
from tfthaw.ir.model import Collection, Model
from tfthaw.serde.artifacts import open_artifact
from tfthaw.serde.meta_graphs import variable_def
from tfthaw.tensors import ArrayTensor

AVERAGE = "/ExponentialMovingAverage"
VALUES = {"w": np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3), "global_step": np.array(7, np.int64)}


def shaped(found, *dims):
    """Return a node that says the shape of its output."""
    found.attrs["_output_shapes"] = AttrList("shape", [Shape(tuple(dims))])
    return found


def pipeline(*dims, dtype=DType.float32):
    """Return a queue, an image that fills it, and the batch out of it."""
    types = AttrList("type", [dtype, DType.int64])
    return [
        node("fifo", "FIFOQueueV2", T=None, component_types=types), constant("n", 2), constant("file", b""),
        node("image", "DecodePng", "file", T=None, dtype=DType.uint8),
        node("image/float", "Cast", "image", T=None, SrcT=DType.uint8, DstT=dtype),
        node("fill", "QueueEnqueueV2", "fifo", "image/float", "n", T=None),
        shaped(node("batch", "QueueDequeueManyV2", "fifo", "n", T=None, component_types=types), *dims),
    ]  # fmt: skip


def model(source="batch", *others, output="detection_boxes"):
    """Return a variable, a convolution with it, and an output."""
    strides, same = AttrList("i", [1, 1, 1, 1]), b"SAME"
    return [
        variable("w", (1, 1, 3, 3)), node("w/read", "Identity", "w"), variable("global_step", (), DType.int64),
        node("conv", "Conv2D", source, "w/read", strides=strides, padding=same), *others,
        node(output, "Identity", "conv"),
    ]  # fmt: skip


class Run:
    """A training run on disk, and an export of it."""

    def __init__(self, folder, nodes, values=None, *, config="", trainable=("w",)):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.prefix, self.out = str(folder / "model.ckpt-1"), folder / "out"
        data = [variable_def(name, initializer=f"{name}/Assign", snapshot=f"{name}/read:0", is_resource=False,
                             trainable=True) for name in trainable]  # fmt: skip
        both = {"variables": Collection("bytes", data), "trainable_variables": Collection("bytes", data)}
        made = Model(Graph(list(nodes), versions=Versions(1087)), collections=both if trainable else {})
        tensors = {name: ArrayTensor(value) for name, value in (values or VALUES).items()}
        write_meta_graph(made, tensors, f"{self.prefix}.meta", Delivery())
        (folder / "pipeline.config").write_text(config)

    def options(self, **given):
        """Return the options of an export."""
        given = {"trained_checkpoint_prefix": self.prefix, "verify": "weights"} | given
        return InferenceOptions(str(self.folder / "pipeline.config"), str(self.out), **given)

    def export(self, **given):
        """Export."""
        return export_inference_graph(self.options(**given))

    def refused(self, error, message, **given):
        """Check that an export is refused and leaves nothing; return the error."""
        before = sorted(self.folder.rglob("*"))
        with pytest.raises(error, match=message) as caught:
            self.export(**given)
        assert sorted(self.folder.rglob("*")) == before
        assert isinstance(caught.value, TfthawError)
        return caught.value


def test_a_graph_of_hand_goes_through(tmp_path):
    result = Run(tmp_path, [*pipeline(2, None, None, 3), *model()]).export()
    assert result.inputs == {"inputs": "image_tensor:0"}
    assert result.outputs == {"detection_boxes": "detection_boxes:0"}
    assert result.variables == 2
    with open_artifact(tmp_path / "out" / "frozen_inference_graph.pb") as artifact:
        ops = {item.name: item.op for item in artifact.model().graph.nodes}
    assert ops["image_tensor/cast"] == "Cast"
    assert ops["w"] == "Const"
    assert "global_step" not in ops
    with open_artifact(tmp_path / "out" / "model.ckpt") as artifact:
        assert artifact.variables["global_step"].numpy() == 7


@pytest.mark.parametrize(
    ("dtype", "cast"), [(DType.uint8, None), (DType.float16, DType.float16), (DType.int32, DType.int32)]
)
def test_a_cut_of_any_number_type(tmp_path, dtype, cast):
    nodes = [node("float", "Cast", "batch", T=None, SrcT=dtype, DstT=DType.float32), *model("float")]
    Run(tmp_path, [*pipeline(None, None, None, 3, dtype=dtype), *nodes]).export()
    with open_artifact(tmp_path / "out" / "frozen_inference_graph.pb") as artifact:
        casts = [item.attrs["DstT"] for item in artifact.model().graph.nodes if item.name == "image_tensor/cast"]
    assert casts == ([] if cast is None else [cast])


def test_no_outputs(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model(output="Postprocessor/detection_boxes")])
    error = run.refused(UsageError, "no outputs of a detection model")
    assert "likely ones: Postprocessor/detection_boxes" in error.hint
    result = run.export(output_tensors=["detection_boxes=Postprocessor/detection_boxes"])
    assert result.outputs == {"detection_boxes": "detection_boxes:0"}


def test_outputs_that_are_not_there(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    run.refused(NotFoundError, "no node 'detection_box'", output_tensors=["detection_box"])
    run.refused(NotFoundError, "no node 'con'", additional_output_tensor_names=["con"])
    run.refused(UsageError, "two outputs would have one name", output_tensors=["a=conv", "a=w"])
    run.refused(UsageError, r"a node \(Conv2D\) that is called conv already", output_tensors=["conv=detection_boxes"])
    run.refused(UsageError, "expected NAME=TENSOR", output_tensors=["=conv"])


def test_several_places_for_images(tmp_path):
    other = placeholder("other", (None, None, None, 3))
    nodes = [*pipeline(2, None, None, 3), other, node("sum", "Add", "batch", "other"), *model("sum")]
    error = Run(tmp_path, nodes).refused(UsageError, "several tensors could be the batch of images")
    assert "batch:0 (float32[2, ?, ?, 3])" in error.hint
    assert "other:0 (float32[?, ?, ?, 3])" in error.hint


def test_no_place_for_images(tmp_path):
    error = Run(tmp_path, [*pipeline(2, 7), *model()]).refused(UsageError, "no tensor looks like the batch of images")
    assert "--input_tensor" in error.hint


def test_places_that_take_no_images(tmp_path):
    decode = node("x", "DecodeRaw", "batch", T=None, out_type=DType.float32)
    run = Run(tmp_path, [*pipeline(2, None, None, 3, dtype=DType.string), decode, *model("x")])
    run.refused(UsageError, r"batch:0 \(string\[2, \?, \?, 3\]\) takes no images", input_tensor="batch")
    run.refused(NotFoundError, "no node 'bach'", input_tensor="bach")


def test_a_place_that_the_outputs_do_not_need(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model(), constant("alone", 1.0)])
    run.refused(UsageError, "the outputs do not need alone:0", input_tensor="alone")


@pytest.mark.parametrize("dims", [(2, None, None, 1), (2, 8, 3), (2, 8, 8, 4)])
def test_shapes_that_contradict(tmp_path, dims):
    run = Run(tmp_path, [*pipeline(*dims), *model()])
    run.refused(UsageError, r"the model takes batch:0 \(float32\[2, .* images of shape \[\?, \?, \?, 3\]",
                input_tensor="batch")  # fmt: skip


def test_an_input_shape_that_the_graph_does_not_take(tmp_path):
    run = Run(tmp_path, [*pipeline(2, 8, 8, 3), *model()])
    run.refused(UsageError, "no tensor looks like", input_shape=(1, 9, 8, 3))
    assert run.export(input_shape=(1, 8, 8, 3)).inputs


def test_images_of_one_size_stay_of_one_size(tmp_path):
    result = Run(tmp_path, [*pipeline(2, 8, 9, 3), *model()]).export(input_type="tf_example")
    assert any("[?, 8, 9, 3]" in note for note in result.notes)
    with open_artifact(tmp_path / "out" / "frozen_inference_graph.pb") as artifact:
        nodes = {item.name: item for item in artifact.model().graph.nodes}
    assert nodes["decode_images/ensure_shape"].shape().dims == (None, 8, 9, 3)
    assert nodes["tf_example"].shape().dims == (None,)


def test_a_batch_that_is_written_in(tmp_path):
    shape = [constant("to", [2, -1]), node("flat", "Reshape", "conv", "to", Tshape=DType.int32)]
    nodes = [*pipeline(2, 8, 8, 3), *model(), *shape]
    run = Run(tmp_path, nodes)
    error = run.refused(UsageError, r"written in \(flat\)", input_shape=(1, 8, 8, 3), output_tensors=["flat"])
    assert error.hint == "give --input_shape 2,8,8,3"
    result = run.export(output_tensors=["flat"])
    assert any("[2, 8, 8, 3]" in note and "flat" in note for note in result.notes)


def test_pixels_that_the_pipeline_changes(tmp_path):
    nodes = [
        *pipeline(2, None, None, 3), constant("half", 0.5), node("scaled", "Mul", "image/float", "half"),
        node("enqueue", "QueueEnqueueV2", "fifo", "scaled", T=None), *model(),
    ]  # fmt: skip
    run = Run(tmp_path, nodes)
    error = run.refused(UsageError, r"changes the values of pixels in front of batch:0, .* not \(Mul\)")
    assert "--input_tensor batch:0" in error.hint
    result = run.export(input_tensor="batch:0")
    assert any("did to pixels (Mul)" in note for note in result.notes)


def test_outputs_that_need_the_pipeline_all_the_same(tmp_path):
    nodes = [*pipeline(2, None, None, 3), *model(), node("detection_classes", "Identity", "batch:1", T=DType.int64)]
    run = Run(tmp_path, nodes)
    error = run.refused(UsageError, "need the input pipeline of training, cut or not: detection_classes needs batch")
    assert "--output_tensors" in error.hint
    run.export(output_tensors=["detection_boxes"])


def test_placeholders_that_are_no_images(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), placeholder("rate", ()), node("sum", "Mul", "batch", "rate"),
                         *model("sum")])  # fmt: skip
    error = run.refused(StructureError, "depend on placeholders that are no input")
    assert "--set rate=VALUE" in error.hint
    assert run.export(set={"rate": 0.5}).variables == 2


CONFIG = "eval_config { use_moving_averages: true }"


def test_moving_averages_that_are_not_there(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], config=CONFIG)
    error = run.refused(RestoreError, "holds no moving averages")
    assert "use_moving_averages: false" in error.hint
    assert run.export(config_override="eval_config { use_moving_averages: false }").moving_averages is False


def test_a_trainable_variable_without_average(tmp_path):
    values = VALUES | {f"other{AVERAGE}": np.zeros(3, np.float32)}
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], values, config=CONFIG)
    error = run.refused(RestoreError, "1 trainable variables have no moving average")
    assert error.missing == (f"w{AVERAGE}",)
    result = run.export(allow_missing=["w"])
    assert any("no moving average and keep their value: w" in note for note in result.notes)


def test_averages_become_values_everywhere(tmp_path):
    average = VALUES["w"] * 3
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], VALUES | {f"w{AVERAGE}": average}, config=CONFIG)
    run.export()
    for name in ("model.ckpt", "frozen_inference_graph.pb", "saved_model"):
        with open_artifact(run.out / name) as artifact:
            found = (
                artifact.variables["w"] if name == "model.ckpt"
                else {item.name: item.tensor() for item in artifact.model().graph.nodes}["w"]
            )  # fmt: skip
            assert found.numpy().tolist() == average.tolist()


def test_averages_that_nobody_asked_for_are_told_of(tmp_path):
    values = VALUES | {f"w{AVERAGE}": VALUES["w"] * 3}
    result = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], values).export()
    assert any("holds 1 moving averages, and eval_config.use_moving_averages is not set" in n for n in result.notes)


def test_a_variable_that_the_checkpoint_does_not_hold(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], {"global_step": VALUES["global_step"]})
    assert run.refused(RestoreError, "1 of . variables have no value").missing == ("w",)


def test_batch_statistics_that_nothing_can_switch(tmp_path):
    scope = [variable("bn/beta", (3,)), node("bn/beta/read", "Identity", "bn/beta"), variable("bn/moving_mean", (3,)),
             node("bn/add", "Add", "conv", "bn/beta/read")]  # fmt: skip
    nodes = [*pipeline(2, None, None, 3), *model(), *scope]
    run = Run(tmp_path, nodes, VALUES | {"bn/beta": np.ones(3, np.float32), "bn/moving_mean": np.ones(3, np.float32)})
    error = run.refused(UnsupportedError, "take the statistics of the batch", output_tensors=["bn/add"])
    assert error.problems == ("bn",)
    assert "--batch-norm keep" in error.hint
    assert run.export(output_tensors=["bn/add"], batch_norm="keep").variables == 3


def test_random_numbers_are_told_of(tmp_path):
    nodes = [*pipeline(2, None, None, 3), constant("size", [3]),
             node("noise", "RandomUniform", "size", dtype=DType.float32, T=DType.int32),
             node("noisy", "Add", "batch", "noise"), *model("noisy")]  # fmt: skip
    result = Run(tmp_path, nodes).export()
    assert any("depend on random numbers" in note and "noise" in note for note in result.notes)


def test_checkpoints_of_another_kind(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    run.refused(NotFoundError, "no file or checkpoint 'nothing'", trained_checkpoint_prefix=str(tmp_path / "nothing"))
    Run(tmp_path / "other", [*pipeline(2, None, None, 3), *model()]).export()
    frozen = str(tmp_path / "other" / "out" / "frozen_inference_graph.pb")
    run.refused(UsageError, "a checkpoint is expected, this is graph-def", trained_checkpoint_prefix=frozen)


def test_a_checkpoint_without_graph(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    (tmp_path / "model.ckpt-1.meta").rename(tmp_path / "graph.meta")
    error = run.refused(UsageError, "no .meta beside the checkpoint")
    assert "--code" in error.hint
    result = run.export(meta_graph=str(tmp_path / "graph.meta"))
    assert result.variables == 2


def test_checkpoints_of_objects_and_of_names_each_have_their_layout(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    tensors = {"_CHECKPOINTABLE_OBJECT_GRAPH": ArrayTensor(np.array(b"", object), DType.string)}
    write_checkpoint(tensors, tmp_path / "objects", Delivery())
    error = run.refused(UnsupportedError, "one of objects", trained_checkpoint_prefix=str(tmp_path / "objects"))
    assert "--trained_checkpoint_dir" in error.hint
    options = InferenceOptions(str(tmp_path / "pipeline.config"), str(tmp_path / "out"),
                               trained_checkpoint_dir=str(tmp_path), code="m:f")  # fmt: skip
    with pytest.raises(UnsupportedError, match="one of names") as caught:
        export_inference_module(options)
    assert "--trained_checkpoint_prefix" in caught.value.hint


def test_the_layout_of_tensorflow_2_needs_code_and_a_directory(tmp_path):
    Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    place = str(tmp_path / "pipeline.config"), str(tmp_path / "out")
    with pytest.raises(UsageError, match="--code MODULE:CALLABLE"):
        export_inference_module(InferenceOptions(*place, trained_checkpoint_dir=str(tmp_path)))
    with pytest.raises(NotFoundError, match="no such directory"):
        export_inference_module(InferenceOptions(*place, trained_checkpoint_dir=str(tmp_path / "x"), code="m:f"))


def test_directories_that_are_there(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    run.out.mkdir()
    run.export()
    run.refused(OutputExistsError, "the directory holds checkpoint, frozen_inference_graph.pb")
    run.export(overwrite=True, write_inference_graph=True)
    (run.out / "mine.txt").write_text("kept")
    run.refused(UsageError, "it holds what would be lost: mine.txt", overwrite=True)
    inside = {"trained_checkpoint_prefix": str(run.out / "model.ckpt")}
    (run.out / "mine.txt").unlink()
    run.refused(UsageError, "in it is what the result is made of", overwrite=True, **inside)


def test_configs_that_are_none(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()], config="model {")
    run.refused(FormatError, "pipeline.config: 1:8: it is no protobuf text")
    (tmp_path / "pipeline.config").write_text("")
    run.refused(FormatError, "--config_override: 1:3", config_override="a ")
    error = run.refused(UsageError, "it overrides model", config_override="model { ssd { num_classes: 1 } }")
    assert "--code" in error.hint
    (tmp_path / "pipeline.config").unlink()
    run.refused(NotFoundError, "pipeline.config")


def test_options_that_contradict_each_other():
    with pytest.raises(UsageError, match="--trained_checkpoint_prefix"):
        InferenceOptions("c", "o")
    with pytest.raises(UsageError, match="not both"):
        InferenceOptions("c", "o", "p", "d")
    with pytest.raises(UsageError, match="Unknown input type: image"):
        InferenceOptions("c", "o", "p", input_type="image")
    with pytest.raises(UsageError, match="Can only specify input shape for `image_tensor` inputs"):
        InferenceOptions("c", "o", "p", input_type="tf_example", input_shape=(1, 2, 2, 3))
    with pytest.raises(UsageError, match="not from both"):
        InferenceOptions("c", "o", "p", code="m:f", meta_graph="g")
    for wrong in ({"batch_norm": "perhaps"}, {"verify": "all"}):
        with pytest.raises(UsageError, match="expected"):
            InferenceOptions("c", "o", "p", **wrong)


def test_input_shapes():
    assert read_input_shape("1,-1, None,3") == (1, None, None, 3)
    for wrong in ("", "1,,3", "1,-2", "a", "1,2.5", "9999999999"):
        with pytest.raises(UsageError, match="is no size"):
            read_input_shape(wrong)


def test_a_flag_whose_default_is_to_train(tmp_path):
    flag = placeholder("is_training", (), DType.bool, "PlaceholderWithDefault", "yes")
    chosen = node("x", "Select", "is_training", "batch", "batch")
    run = Run(tmp_path, [*pipeline(2, None, None, 3), constant("yes", True), flag, chosen, *model("x")])
    error = run.refused(UsageError, "is_training would tell the exported graph to train")
    assert "--set is_training=false" in error.hint
    assert run.export(set={"is_training": False}).variables == 2


def test_places_inside_of_loops(tmp_path):
    """An export that takes encoded images is no source for one that takes images, unless it is said where."""
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    run.export(input_type="encoded_image_string_tensor")
    again = Run(tmp_path / "again", [], {})
    again.prefix = str(run.out / "model.ckpt")
    error = again.refused(UsageError, "no tensor looks like the batch of images")
    assert "decode_images/stack/TensorArrayGatherV3:0 (uint8[?, ?, ?, 3])" in error.hint
    again.refused(UsageError, "in each turn of a loop", input_tensor="decode_images/while/DecodePng")
    assert again.export(input_tensor="decode_images/stack/TensorArrayGatherV3").inputs == {"inputs": "image_tensor:0"}
    with open_artifact(again.out / "frozen_inference_graph.pb") as artifact:
        assert not [item.name for item in artifact.model().graph.nodes if item.name.startswith("decode_images")]


def test_an_export_is_a_source_again(tmp_path):
    run = Run(tmp_path, [*pipeline(2, None, None, 3), *model()])
    run.export()
    again = Run(tmp_path / "again", [], {})
    again.prefix = str(run.out / "model.ckpt")
    again.export()
    name = "frozen_inference_graph.pb"
    assert (again.out / name).read_bytes() == (run.out / name).read_bytes()
    again.out = tmp_path / "examples"
    assert again.export(input_type="tf_example").inputs == {"inputs": "tf_example:0"}
    again.out = tmp_path / "fixed"
    again.export(input_shape=(1, 5, 5, 3))
    with open_artifact(again.out / name) as artifact:
        nodes = {item.name: item for item in artifact.model().graph.nodes}
    assert nodes["image_tensor"].shape().dims == (1, 5, 5, 3)
