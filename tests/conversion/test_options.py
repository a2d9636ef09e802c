"""Options that would change nothing are refused, not ignored."""

import pytest

from tfthaw import demo
from tfthaw.conversion.converting import convert
from tfthaw.conversion.options import Options
from tfthaw.errors import UsageError
from tfthaw.formats.meta_graph import read_meta_graph


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"to": "npz", "outputs": ["a"]}, "outputs choose or change a part of a graph, and npz holds weights alone"),
        ({"to": "checkpoint", "set": {"a": 1}}, "set choose"),
        ({"to": "safetensors", "signature": "a"}, "signature choose"),
        ({"to": "npz", "batch_norm": "inference"}, "batch_norm choose"),
        ({"to": "frozen-graph", "optimizer": "keep"}, "need nothing of an optimizer"),
        ({"to": "frozen-graph", "dtype": "float16"}, "casts weights formats"),
        ({"to": "npz", "signature": "a", "outputs": ["b"]}, "not both"),
        ({"to": "onnx"}, "expected one of"),
    ],
)
def test_contradictions(options, match):
    with pytest.raises(UsageError, match=match):
        Options(**options)


@pytest.mark.parametrize(
    "options",
    [{"ema": "use"}, {"optimizer": "drop"}, {"batch_norm": "inference"}, {"map": {"a": "b"}}, {"allow_missing": ["*"]}],
)
def test_a_whole_graph_keeps_its_variables(tmp_path, options):
    with pytest.raises(UsageError, match=f"{next(iter(options))} would change nothing; choose what"):
        convert(demo.META_GRAPH, tmp_path / "a", to="meta-graph", **options)
    assert not list(tmp_path.iterdir())


def test_a_pruned_graph_keeps_no_optimizer(tmp_path):
    with pytest.raises(UsageError, match="nothing of an optimizer"):
        convert(demo.META_GRAPH, tmp_path / "a", to="meta-graph", outputs=["probabilities"], optimizer="keep")


@pytest.mark.tf
def test_a_saver_of_v1_checkpoints_is_replaced(tf, tmp_path):
    """A graph of TensorFlow 0.x restores with RestoreSlice, which reads no checkpoint that is written today."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        weights = v1.get_variable("w", initializer=[1.0, 2.0], use_resource=False)
        prefix = v1.placeholder_with_default("model", [], name="save/Const")
        value = tf.raw_ops.RestoreSlice(file_pattern=prefix, tensor_name="w", shape_and_slice="", dt=tf.float32)
        restore = v1.assign(weights, value, name="save/Assign")
        saver = v1.train.Saver([weights], write_version=v1.train.SaverDef.V1)
        session.run(weights.initializer)
        path = saver.save(session, str(tmp_path / "old.ckpt"), write_meta_graph=False)
        definition = v1.train.SaverDef(
            filename_tensor_name="save/Const:0",
            save_tensor_name="save/Const:0",
            restore_op_name=restore.op.name,
            version=1,
        )
        v1.train.export_meta_graph(path + ".meta", graph=graph, saver_def=definition)

    result = convert(path + ".meta", tmp_path / "new/m.meta", to="meta-graph")

    assert any("a new one reads the checkpoint that was written" in note for note in result.notes)
    assert read_meta_graph(tmp_path / "new/m.meta").message.saver_def.version == 2
    with tf.Graph().as_default(), v1.Session() as session:
        v1.train.import_meta_graph(str(tmp_path / "new/m.meta")).restore(session, str(tmp_path / "new/m"))
        assert session.run("w:0").tolist() == [1.0, 2.0]
