"""A training run of a small detection model, as TensorFlow 1 scripts had them: files, queues, SSD, averages, Saver."""

import warnings
from types import SimpleNamespace

import numpy as np

from v1_sessions import plain_config, v1_control_flow

CONFIG = """\
# written by hand
model {
  ssd {
    num_classes: 3
    image_resizer { fixed_shape_resizer { height: 32 width: 32 } }
    anchor_generator { ssd_anchor_generator { aspect_ratios: [1.0, 2.0] } }
  }
}
train_config: {
  batch_size: 2
  optimizer { momentum_optimizer: < learning_rate { constant_learning_rate { learning_rate: 0.01 } } > }
  data_augmentation_options { random_horizontal_flip { } }
  fine_tune_checkpoint: "a/b" '/c'
}
eval_config {
  num_examples: 8
  use_moving_averages: true
}
"""
OUTPUTS = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
CLASSES, BOXES, SIZE = 3, 5, 32


def pictures(count=2, height=40, width=48, seed=0):
    """Return images, `uint8[count, height, width, 3]`."""
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3)).astype(np.uint8)


def _batch_norm(tf, x, name, training, fused=True):
    v1 = tf.compat.v1
    with v1.variable_scope(name):
        size = x.shape[-1]
        ones, zeros = v1.ones_initializer(), v1.zeros_initializer()
        gamma = v1.get_variable("gamma", [size], initializer=ones)
        beta = v1.get_variable("beta", [size], initializer=zeros)
        mean = v1.get_variable("moving_mean", [size], initializer=zeros, trainable=False)
        variance = v1.get_variable("moving_variance", [size], initializer=ones, trainable=False)
        if not training:
            return v1.nn.fused_batch_norm(x, gamma, beta, mean, variance, is_training=False)[0]
        if fused:
            y, batch_mean, batch_variance = v1.nn.fused_batch_norm(x, gamma, beta, is_training=True)
        else:
            batch_mean, batch_variance = tf.nn.moments(x, [0, 1, 2])
            y = tf.nn.batch_normalization(x, batch_mean, batch_variance, beta, gamma, 1e-3)
        for average, now in ((mean, batch_mean), (variance, batch_variance)):
            update = v1.assign_sub(average, (average - now) * 0.1)
            v1.add_to_collection(v1.GraphKeys.UPDATE_OPS, update)
        return y


def _convolution(tf, x, name, filters, stride, training, fused=True):
    v1 = tf.compat.v1
    with v1.variable_scope(name):
        shape = [3, 3, int(x.shape[-1]), filters]
        kernel = v1.get_variable("weights", shape, initializer=v1.truncated_normal_initializer(stddev=0.2))
        y = tf.nn.conv2d(x, kernel, strides=[1, stride, stride, 1], padding="SAME")
        return tf.nn.relu6(_batch_norm(tf, y, "BatchNorm", training, fused))


def detect(tf, images, training, fused=True):
    """Build the model on a batch of images of any numeric type and size; return its outputs by name."""
    v1 = tf.compat.v1
    with v1.name_scope("Preprocessor"):
        prepared = tf.map_fn(
            lambda image: v1.image.resize_images(tf.cast(image, tf.float32), [SIZE, SIZE]), images, dtype=tf.float32
        )
        prepared = (2.0 / 255.0) * tf.reshape(prepared, [-1, SIZE, SIZE, 3]) - 1.0
    features = prepared
    for number, filters in enumerate((4, 8)):
        features = _convolution(tf, features, f"FeatureExtractor/Conv{number}", filters, 2, training, fused)
    with v1.variable_scope("BoxPredictor"):
        depth = CLASSES + 4
        kernel = v1.get_variable("weights", [1, 1, 8, depth], initializer=v1.random_normal_initializer(stddev=0.5))
        bias = v1.get_variable("biases", [depth], initializer=v1.zeros_initializer())
        raw = tf.reshape(tf.nn.conv2d(features, kernel, strides=1, padding="SAME") + bias, [-1, 64, depth])
    scores = tf.sigmoid(raw[:, :, :CLASSES])
    rows = np.arange(8, dtype=np.float32) / 8
    anchors = np.stack([*np.meshgrid(rows, rows, indexing="ij")], -1).reshape(-1, 2)
    corners = tf.constant(anchors) + 0.05 * tf.tanh(raw[:, :, CLASSES:CLASSES + 2])
    boxes = tf.concat([corners, corners + 0.2 * tf.sigmoid(raw[:, :, CLASSES + 2:])], -1)

    def suppressed(pair):
        box, score = pair
        best = tf.reduce_max(score, 1)
        kept = tf.image.non_max_suppression(box, best, BOXES, iou_threshold=0.3)
        count = tf.shape(kept)[0]
        pad = BOXES - count
        classes = tf.cast(tf.argmax(tf.gather(score, kept), 1), tf.float32)
        return (
            tf.pad(tf.gather(box, kept), [[0, pad], [0, 0]]), tf.pad(tf.gather(best, kept), [[0, pad]]),
            tf.pad(classes, [[0, pad]]), tf.cast(count, tf.float32),
        )  # fmt: skip

    with v1.name_scope("Postprocessor"):
        found = tf.map_fn(suppressed, (boxes, scores), dtype=(tf.float32,) * 4)
    found = [found[0], found[1], found[2] + 1.0, found[3]]
    return {name: tf.identity(value, name=name) for name, value in zip(OUTPUTS, found, strict=True)}


def _batches(tf, folder, is_fixed):
    """Build the input pipeline: file names, a reader, decoding, and a queue of batches of two images."""
    v1 = tf.compat.v1
    paths = []
    with tf.Graph().as_default(), v1.Session() as session:
        for number, image in enumerate(pictures(3, SIZE, SIZE)):
            path = folder / f"{number}.png"
            path.write_bytes(session.run(v1.image.encode_png(image)))
            paths.append(str(path))

    def build():
        _, contents = v1.WholeFileReader().read(v1.train.string_input_producer(paths, shuffle=False))
        image = tf.cast(v1.image.decode_png(contents, channels=3), tf.float32)
        image.set_shape([SIZE, SIZE, 3] if is_fixed else [None, None, 3])
        tensors = [image, tf.constant(1, tf.int64)]
        return v1.train.batch(tensors, batch_size=2, capacity=4, dynamic_pad=not is_fixed, name="batch")

    return build


def train(tf, folder, *, write_version=2, fused=True, is_fixed=False):
    """Train a detection model for two steps and save it.

    Args:
        tf: TensorFlow.
        folder: Where to save it.
        write_version: The version of the checkpoint.
        fused: Whether batch normalisation is one op.
        is_fixed: Whether the pipeline gives images of one size alone.

    Returns:
        What an export needs and what it must give: `prefix`, `config`, and `expected(images, averages)`.
    """
    v1 = tf.compat.v1
    folder.mkdir(parents=True, exist_ok=True)
    batch = _batches(tf, folder, is_fixed)
    prefix = str(folder / "model.ckpt-2")
    with tf.Graph().as_default() as graph, v1_control_flow(tf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.seed = 5
        with tf.device("/device:CPU:0"):
            images, labels = batch()
            outputs = detect(tf, images, True, fused)
        loss = tf.reduce_mean(tf.square(outputs["detection_scores"] - 0.5)) + 0.0 * tf.cast(labels[0], tf.float32)
        loss += sum(1e-3 * tf.nn.l2_loss(variable) for variable in v1.trainable_variables())
        v1.summary.scalar("loss", loss)
        v1.summary.merge_all()
        step = v1.train.get_or_create_global_step()
        updates = v1.get_collection(v1.GraphKeys.UPDATE_OPS)
        with tf.control_dependencies(updates):
            minimise = v1.train.MomentumOptimizer(0.05, 0.9).minimize(loss, global_step=step)
        averages = tf.train.ExponentialMovingAverage(0.5)
        with tf.control_dependencies([minimise]):
            train_op = averages.apply(v1.trainable_variables())
        with v1.Session(config=plain_config(tf), graph=graph) as session:
            session.run([v1.global_variables_initializer(), v1.local_variables_initializer()])
            coordinator = tf.train.Coordinator()
            threads = v1.train.start_queue_runners(session, coordinator)
            for _ in range(2):
                session.run(train_op)
            v1.train.Saver(write_version=write_version).save(session, prefix)
            values = {variable.op.name: session.run(variable) for variable in v1.global_variables()}
            coordinator.request_stop()
            coordinator.join(threads)
    config = folder / "pipeline.config"
    config.write_text(CONFIG)
    return SimpleNamespace(
        folder=folder, prefix=prefix, config=str(config), values=values,
        expected=lambda images, averages: expected(tf, values, images, averages),
    )  # fmt: skip


def averaged(values, averages):
    """Return the values that an inference graph has: averages in the place of their variables, or the values."""
    suffix = "/ExponentialMovingAverage"
    plain = {name: value for name, value in values.items() if not name.endswith(suffix)}
    return {name: values.get(name + suffix, value) if averages else value for name, value in plain.items()}


def expected(tf, values, images, averages):
    """Return what the model of those values, built for inference, gives for images."""
    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1_control_flow(tf), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fed = v1.placeholder(tf.uint8, [None, None, None, 3])
        outputs = detect(tf, fed, False)
        now = averaged(values, averages)
        with v1.Session(config=plain_config(tf), graph=graph) as session:
            for variable in v1.global_variables():
                variable.load(now[variable.op.name], session)
            return session.run(outputs, {fed: images})
