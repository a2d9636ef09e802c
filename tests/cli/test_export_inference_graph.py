"""`tfthaw export-inference-graph` in the layout of TensorFlow 1, on a real training run."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

from detection_runs import OUTPUTS, SIZE, averaged, detect, pictures, train
from tfthaw.serde.artifacts import open_artifact
from v1_sessions import plain_config, v1_control_flow

FILES = [
    "checkpoint", "frozen_inference_graph.pb", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "model.ckpt.meta",
    "pipeline.config", "saved_model/saved_model.pb",
]  # fmt: skip


@pytest.fixture(scope="session")
def trained(tf, tmp_path_factory):
    """A training run, saved."""
    return train(tf, tmp_path_factory.mktemp("detection"))


@pytest.fixture
def export(run, trained, tmp_path):
    """Export the training run: (what --json says, the directory)."""

    def export(*flags, prefix=trained.prefix, out=tmp_path / "out"):
        status, said, err = run(
            "export-inference-graph", "--pipeline_config_path", trained.config, f"--trained_checkpoint_prefix={prefix}",
            "--output_directory", out, "--json", *flags,
        )  # fmt: skip
        assert (status, err) == (0, ""), err
        return json.loads(said), Path(out)

    return export


def _feeds(tf, kind, images):
    if kind == "image_tensor":
        return images
    encoded = [tf.io.encode_png(image).numpy() for image in images]
    if kind == "tf_example":
        encoded = [
            tf.train.Example(features=tf.train.Features(feature={
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[item])),
                "image/format": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"png"])),
            })).SerializeToString()
            for item in encoded
        ]  # fmt: skip
    return np.array(encoded, object)


def _session_outputs(tf, load, feed, value):
    with tf.Graph().as_default(), tf.compat.v1.Session(config=plain_config(tf)) as session:
        load(session)
        return session.run({name: f"{name}:0" for name in OUTPUTS}, {feed: value})


def _frozen(tf, out):
    def load(session):
        del session
        message = tf.compat.v1.GraphDef.FromString((out / "frozen_inference_graph.pb").read_bytes())
        tf.import_graph_def(message, name="")

    return load


def _restored(tf, out):
    def load(session):
        saver = tf.compat.v1.train.import_meta_graph(str(out / "model.ckpt.meta"))
        saver.restore(session, tf.train.latest_checkpoint(str(out)))

    return load


def _saved(tf, out):
    return lambda session: tf.compat.v1.saved_model.load(session, ["serve"], str(out / "saved_model"))


def _assert_same(found, expected):
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.tf
@pytest.mark.parametrize("kind", ["image_tensor", "encoded_image_string_tensor", "tf_example"])
def test_all_three_artifacts_give_what_the_trained_model_gives(tf, trained, export, kind):
    said, out = export("--input_type", kind, "--verify", "weights")
    images = pictures()
    expected = trained.expected(images, averages=True)
    assert any(np.any(value != trained.expected(images, averages=False)[name]) for name, value in expected.items())
    fed = _feeds(tf, kind, images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for load in (_frozen, _restored, _saved):
            _assert_same(_session_outputs(tf, load(tf, out), f"{kind}:0", fed), expected)
        loaded = tf.saved_model.load(str(out / "saved_model")).signatures["serving_default"]
    found = loaded(inputs=tf.constant(fed))
    for name, value in expected.items():  # here TensorFlow optimises the graph, and may round in another order
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-5, atol=1e-6)
    assert said["files"] == FILES
    assert said["inputs"] == {"inputs": f"{kind}:0"}
    assert set(said["outputs"]) == set(OUTPUTS)


@pytest.mark.tf
def test_the_values_of_every_artifact_are_those_of_the_session(trained, export):
    for flags, averages in (((), True), (("--config_override", "eval_config { use_moving_averages: false }"), False)):
        said, out = export(*flags, "--verify", "weights", "--overwrite")
        expected = averaged(trained.values, averages)
        expected = {name: value for name, value in expected.items() if not name.endswith("Momentum")}
        with open_artifact(out / "model.ckpt") as artifact:
            assert set(artifact.variables) == set(expected)
            for name, value in expected.items():
                assert artifact.variables[name].numpy().tobytes() == value.tobytes(), name
        with open_artifact(out / "frozen_inference_graph.pb") as artifact:
            nodes = {node.name: node for node in artifact.model().graph.nodes}
            for name in set(expected) - {"global_step"}:
                assert nodes[name].tensor().numpy().tobytes() == expected[name].tobytes(), name
        assert said["moving_averages"] is averages
        assert said["verified"]["weights"] == {"compared": 13, "bytes": sum(v.nbytes for v in expected.values()),
                                               "different": 0}  # fmt: skip


@pytest.mark.tf
def test_what_only_training_needs_is_gone(export):
    said, out = export("--verify", "weights", "--write_inference_graph")
    assert said["files"] == sorted([*FILES, "inference_graph.pbtxt"])
    for name in ("frozen_inference_graph.pb", "model.ckpt.meta", "inference_graph.pbtxt", "saved_model"):
        with open_artifact(out / name) as artifact:
            nodes = artifact.model().graph.nodes
        ops = {node.op for node in nodes}
        assert not {op for op in ops if "Queue" in op or "Reader" in op or "Summary" in op or "Apply" in op}
        assert not [node.name for node in nodes if node.device or "_output_shapes" in node.attrs]
        assert [node.name for node in nodes if node.op == "Placeholder"] == ["image_tensor"]
    with open_artifact(out / "model.ckpt.meta") as artifact:
        collections = artifact.model().collections
    assert collections["inference_op"].items == [f"{name}:0" for name in OUTPUTS]


@pytest.mark.tf
def test_outputs_are_proved_in_a_process_of_its_own(export):
    said, _ = export("--input_type=encoded_image_string_tensor")
    assert said["verified"]["outputs"]["done"]
    assert any("model.ckpt.meta" in note for note in said["notes"])


@pytest.mark.tf
def test_the_copy_of_the_config_says_that_averages_are_the_values(export):
    _, out = export("--verify=weights", "--config_override", 'train_config { fine_tune_checkpoint: "x" num_steps: 7 }')
    text = (out / "pipeline.config").read_text()
    assert "use_moving_averages: false" in text
    assert 'fine_tune_checkpoint: "x"' in text
    assert "num_steps: 7" in text
    assert "num_classes: 3" in text


@pytest.mark.tf
def test_v1_checkpoints(tf, tmp_path, run):
    old = train(tf, tmp_path / "old", write_version=1)
    status, _, err = run(
        "export-inference-graph", "--pipeline_config_path", old.config, "--trained_checkpoint_prefix", old.prefix,
        "--output_directory", tmp_path / "out", "--verify", "weights",
    )  # fmt: skip
    assert (status, err) == (0, "")
    with open_artifact(tmp_path / "out" / "model.ckpt") as artifact:
        assert artifact.format == "checkpoint"
        for name, value in averaged(old.values, True).items():
            if not name.endswith("Momentum"):
                assert artifact.variables[name].numpy().tobytes() == value.tobytes()


@pytest.mark.tf
def test_one_damaged_byte_is_noticed(trained, run, tmp_path):
    folder = tmp_path / "damaged"
    shutil.copytree(trained.folder, folder)
    data = folder / "model.ckpt-2.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    with open_artifact(folder / "model.ckpt-2") as artifact:
        place = artifact.checkpoint.tensors["BoxPredictor/weights/ExponentialMovingAverage"].slice
    content[place.offset] ^= 1
    data.write_bytes(content)
    status, out, err = run(
        "export-inference-graph", "--pipeline_config_path", trained.config, "--trained_checkpoint_prefix",
        folder / "model.ckpt-2", "--output_directory", tmp_path / "out",
    )  # fmt: skip
    assert (status, out) == (2, "")
    assert "checksum" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.tf
def test_a_fixed_shape_and_further_nodes(export):
    said, out = export(
        "-input_type", "image_tensor", "-input_shape", f"2,{SIZE},{SIZE},3", "--additional_output_tensor_names",
        "Preprocessor/mul,Postprocessor/map/while/Exit_1", "--verify=weights",
    )  # fmt: skip
    with open_artifact(out / "frozen_inference_graph.pb") as artifact:
        nodes = {node.name: node for node in artifact.model().graph.nodes}
    assert nodes["image_tensor"].shape().dims == (2, SIZE, SIZE, 3)
    assert "Preprocessor/mul" in nodes
    assert set(said["outputs"]) == set(OUTPUTS)


@pytest.mark.tf
def test_a_batch_that_loops_have_written_in(run, trained, export, tmp_path):
    """`map_fn` counts the images of a batch when the graph is built, where it can."""
    said, out = export("--verify=weights")
    assert any("batches of 2 alone" in note and "Preprocessor/map/TensorArray" in note for note in said["notes"])
    with open_artifact(out / "frozen_inference_graph.pb") as artifact:
        nodes = {node.name: node for node in artifact.model().graph.nodes}
    assert nodes["image_tensor"].shape().dims == (None, None, None, 3)
    status, _, err = run(
        "export-inference-graph", "--pipeline_config_path", trained.config, "--trained_checkpoint_prefix",
        trained.prefix, "--output_directory", tmp_path / "other", "--input_shape", "1,-1,-1,3",
    )  # fmt: skip
    assert status == 2
    assert "give --input_shape 2,-1,-1,3" in err


@pytest.mark.tf
def test_a_pipeline_of_images_of_one_size(tf, run, tmp_path):
    """Its resize to the size that comes in anyway is not in the graph, so no other size may come in."""
    fixed = train(tf, tmp_path / "fixed", is_fixed=True)
    status, said, err = run(
        "export-inference-graph", "--pipeline_config_path", fixed.config, "--trained_checkpoint_prefix", fixed.prefix,
        "--output_directory", tmp_path / "out", "--verify", "weights", "--json", "--input_type", "tf_example",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert any(f"[?, {SIZE}, {SIZE}, 3]" in note for note in json.loads(said)["notes"])
    images = pictures(2, SIZE, SIZE)
    fed = _feeds(tf, "tf_example", images)
    expected = fixed.expected(images, averages=True)
    load = _frozen(tf, tmp_path / "out")
    _assert_same(_session_outputs(tf, load, "tf_example:0", fed), expected)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        _session_outputs(tf, load, "tf_example:0", _feeds(tf, "tf_example", pictures(2, SIZE, SIZE + 2)))


def test_an_evaluation_graph_says_what_the_config_says(tf, run, trained, tmp_path):
    """Its Saver reads averages, which has to be what the config asks for."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1_control_flow(tf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        detect(tf, v1.placeholder(tf.uint8, [None, None, None, 3], name="image_tensor"), False)
        v1.train.get_or_create_global_step()
        keys = tf.train.ExponentialMovingAverage(0.0).variables_to_restore()
        v1.train.Saver(keys).export_meta_graph(str(tmp_path / "eval.meta"))
    arguments = [
        "export-inference-graph", "--pipeline_config_path", trained.config, "--trained_checkpoint_prefix",
        trained.prefix, "--meta_graph", tmp_path / "eval.meta", "--output_directory", tmp_path / "out",
    ]  # fmt: skip
    status, _, err = run(*arguments, "--config_override", "eval_config { use_moving_averages: false }")
    assert status == 1
    assert "Saver reads moving averages into" in err
    assert not (tmp_path / "out").exists()
    assert run(*arguments)[0] == 0
    images = pictures(2)
    wanted = trained.expected(images, True)
    found = _session_outputs(tf, _frozen(tf, tmp_path / "out"), "image_tensor:0", images)
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-4, atol=1e-5)
