"""`tfthaw export-inference-graph` in the layout of TensorFlow 2, and with code in the layout of TensorFlow 1."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from detection_runs import CONFIG, OUTPUTS, averaged, pictures, train
from tfthaw.serde.artifacts import open_artifact

CODE = """\
import tensorflow as tf

class Net(tf.Module):
    def __init__(self):
        super().__init__()
        self.kernel = tf.Variable(tf.random.stateless_normal([3, 3, 3, 4], [1, 2]), name="kernel")
        self.bias = tf.Variable(tf.zeros([4]), name="bias")

    def predict(self, images):
        features = tf.nn.relu(tf.nn.conv2d(images / 255.0, self.kernel, 1, "SAME") + self.bias)
        boxes = tf.map_fn(lambda image: tf.image.resize(image, [2, 2])[..., 0], features)
        return {"detection_boxes": tf.reshape(boxes, [-1, 1, 4]), "num_detections": tf.reduce_sum(features, [1, 2, 3])}

class Detector(tf.Module):
    def __init__(self, model):
        super().__init__()
        self._model = model

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8)])
    def __call__(self, input_tensor):
        return self._model.predict(tf.cast(input_tensor, tf.float32))

class FloatDetector(Detector):
    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
    def __call__(self, image):
        return self._model.predict(image)

class Sided(Detector):
    @tf.function
    def __call__(self, context, image):
        outputs = self._model.predict(tf.cast(image, tf.float32))
        return outputs | {"num_detections": outputs["num_detections"] + tf.reduce_sum(context)}

def build():
    return Detector(Net())

def build_sided():
    return Sided(Net())

def build_float():
    return FloatDetector(Net())
"""
TRAINING = """\
import json, sys
import numpy as np, tensorflow as tf
import detector
net = detector.Net()
optimizer = tf.keras.optimizers.Adam()
optimizer.build([net.kernel, net.bias])
checkpoint = tf.train.Checkpoint(model=net, optimizer=optimizer)
manager = tf.train.CheckpointManager(checkpoint, "train", max_to_keep=2)
for step in range(2):
    net.kernel.assign_add(0.1 * tf.ones_like(net.kernel))
    net.bias.assign_add([1.0, 2.0, 3.0, 4.0])
    manager.save()
image = tf.constant(np.load("image.npy"))
outputs = detector.Detector(net)(image)
np.savez("expected.npz", kernel=net.kernel, bias=net.bias, **outputs)
"""
FILES = [
    "checkpoint/checkpoint", "checkpoint/ckpt-0.data-00000-of-00001", "checkpoint/ckpt-0.index", "pipeline.config",
    "saved_model/fingerprint.pb", "saved_model/saved_model.pb", "saved_model/variables/variables.data-00000-of-00001",
    "saved_model/variables/variables.index",
]  # fmt: skip


def _python(script, folder):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", script], cwd=folder, env=environment, check=True, capture_output=True)


@pytest.fixture(scope="session")
def trained2(tmp_path_factory):
    """A training run of TensorFlow 2 with two checkpoints, in a process of its own."""
    folder = tmp_path_factory.mktemp("detection2")
    (folder / "detector.py").write_text(CODE)
    (folder / "pipeline.config").write_text(CONFIG)
    np.save(folder / "image.npy", pictures(1, 20, 24))
    _python(TRAINING, folder)
    return folder


@pytest.fixture
def export(run, trained2, tmp_path):
    """Export the training run: (what --json says, the directory)."""

    def export(*flags, code="build", train=trained2 / "train"):
        out = tmp_path / "out"
        status, said, err = run(
            "export-inference-graph", "--pipeline_config_path", trained2 / "pipeline.config",
            f"--trained_checkpoint_dir={train}", "--output_directory", out, "--json", "--code",
            f"{trained2 / 'detector.py'}:{code}", *flags,
        )  # fmt: skip
        assert (status, err) == (0, ""), err
        return json.loads(said), Path(out)

    return export


def _image(tf, kind, image):
    if kind in ("image_tensor", "float_image_tensor"):
        return tf.constant(image.astype(np.float32 if kind.startswith("float") else np.uint8))
    encoded = tf.io.encode_png(image[0]).numpy()
    if kind == "tf_example":
        feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded]))
        example = tf.train.Example(features=tf.train.Features(feature={"image/encoded": feature}))
        encoded = example.SerializeToString()
    return tf.constant([encoded])


@pytest.mark.tf
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("image_tensor", "build"), ("image_tensor", "build_float"), ("float_image_tensor", "build_float"),
        ("encoded_image_string_tensor", "build"), ("tf_example", "build_float"),
    ],
)  # fmt: skip
def test_what_is_exported_gives_what_the_trained_model_gives(tf, trained2, export, kind, code):
    said, out = export("--input_type", kind, "--verify", "weights", code=code)
    expected = np.load(trained2 / "expected.npz")
    loaded = tf.saved_model.load(str(out / "saved_model"))
    signature = loaded.signatures["serving_default"]
    (name,) = signature.structured_input_signature[1]
    found = signature(**{name: _image(tf, kind, np.load(trained2 / "image.npy"))})
    for output in ("detection_boxes", "num_detections"):
        np.testing.assert_allclose(found[output].numpy(), expected[output], rtol=1e-5, err_msg=output)
    called = loaded(_image(tf, kind, np.load(trained2 / "image.npy")))
    np.testing.assert_array_equal(called["detection_boxes"], found["detection_boxes"])
    assert said["files"] == FILES
    assert (out / "saved_model" / "assets").is_dir()
    assert list(said["inputs"]) == [name]
    assert said["layout"] == "exporter_main_v2"


@pytest.mark.tf
def test_the_checkpoint_restores_into_the_model_alone(tf, trained2, export):
    _, out = export("--verify", "weights")
    kernel, bias = tf.Variable(tf.zeros([3, 3, 3, 4])), tf.Variable(tf.zeros([4]))
    model = tf.Module()
    model.kernel, model.bias = kernel, bias
    restoring = tf.train.Checkpoint(model=model)
    latest = tf.train.latest_checkpoint(str(out / "checkpoint"))
    assert latest == str(out / "checkpoint" / "ckpt-0")
    restoring.restore(latest).assert_consumed()
    expected = np.load(trained2 / "expected.npz")
    np.testing.assert_array_equal(kernel.numpy(), expected["kernel"])
    np.testing.assert_array_equal(bias.numpy(), expected["bias"])
    with open_artifact(out / "checkpoint") as artifact:
        assert not [name for name in artifact.tensors if "optimizer" in name]


@pytest.mark.tf
def test_outputs_are_proved_against_the_live_model_and_the_config_is_kept(export):
    said, out = export("--config_override", "eval_config { num_examples: 9 }")
    assert said["verified"]["outputs"]["done"]
    text = (out / "pipeline.config").read_text()
    assert "num_examples: 9" in text
    assert "use_moving_averages: true" in text
    assert any("use_moving_averages" in note for note in said["notes"])


@pytest.mark.tf
def test_one_damaged_byte_is_noticed(run, trained2, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(trained2 / "train", folder)
    (data,) = folder.glob("ckpt-2.data*")
    content = bytearray(data.read_bytes())
    with open_artifact(folder) as artifact:
        content[artifact.tensors["model/kernel/.ATTRIBUTES/VARIABLE_VALUE"].slice.offset] ^= 1
    data.write_bytes(content)
    status, out, err = run(
        "export-inference-graph", "--pipeline_config_path", trained2 / "pipeline.config", "--trained_checkpoint_dir",
        folder, "--output_directory", tmp_path / "out", "--code", f"{trained2 / 'detector.py'}:build",
    )  # fmt: skip
    assert (status, out) == (2, "")
    assert "checksum" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.tf
def test_side_inputs(export):
    said, _ = export(
        "--use_side_inputs", "--side_input_names=context", "--side_input_types=float", "--side_input_shapes=-1",
        "--input", "image:uint8[1,?,?,3]", "--input_type", "tf_example", code="build_sided",
    )  # fmt: skip
    assert set(said["inputs"]) == {"context", "input_tensor"}
    assert said["verified"]["outputs"]["done"]


V1_CODE = """\
import sys
sys.path.insert(0, {tests!r})
import tensorflow as tf
import detection_runs

def build():
    images = tf.compat.v1.placeholder(tf.uint8, [None, None, None, 3], name="image_tensor")
    return images, detection_runs.detect(tf, images, False)
"""


@pytest.mark.tf
def test_code_in_the_place_of_the_graph(tf, run, tmp_path):
    trained = train(tf, tmp_path / "train")
    (tmp_path / "code.py").write_text(V1_CODE.format(tests=str(Path(__file__).parents[1])))
    os.remove(f"{trained.prefix}.meta")
    status, out, err = run(
        "export-inference-graph", "--pipeline_config_path", trained.config, "--trained_checkpoint_prefix",
        trained.prefix, "--output_directory", tmp_path / "out", "--code", f"{tmp_path / 'code.py'}:build", "--json",
    )  # fmt: skip
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["verified"]["outputs"]["done"]
    assert set(said["outputs"]) == set(OUTPUTS)
    with open_artifact(tmp_path / "out" / "model.ckpt") as artifact:
        for name, value in averaged(trained.values, True).items():
            if not name.endswith("Momentum"):
                assert artifact.variables[name].numpy().tobytes() == value.tobytes(), name
    images, expected = pictures(3), trained.expected(pictures(3), averages=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "out" / "saved_model"))
        found = session.run({name: f"{name}:0" for name in OUTPUTS}, {"image_tensor:0": images})
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
