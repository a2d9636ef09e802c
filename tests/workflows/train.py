"""Train the models of all workflows under this process's Keras, and save every kind of checkpoint of each.

`python -m workflows.train LAB KERAS` leaves in LAB/KERAS/WORKFLOW/KIND the checkpoint `ckpt`, and `facts.npz`: `feed`,
`expected` and the trained values `0`, `1`, ... After training every variable gets values of its own, drawn at random,
so that no initializer and no other variable has the same.
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from workflows.table import EXAMPLES, WORKFLOWS


def load_example(name):
    """Import an example by its path."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawn(generator, name, shape):
    """Return values for a variable; variances are positive."""
    values = generator.uniform(0.1, 0.6, shape).astype(np.float32)
    return values if "variance" in name else values * generator.choice([-1, 1], shape).astype(np.float32)


class Training:
    """The training of one workflow for one kind of checkpoint."""

    def __init__(self, workflow, kind, folder):
        self.workflow, self.kind, self.folder = workflow, kind, folder
        self.prefix = str(folder / "ckpt")
        self.generator = np.random.default_rng([WORKFLOWS.index(workflow), *kind.encode(), *folder.parts[-3].encode()])
        if workflow.example.startswith("inference_graph"):
            self.feed = self.generator.integers(0, 256, workflow.shape).astype(np.uint8)
            self.model_input = self.feed / np.float32(127.5) - 1
        else:
            self.feed = self.model_input = self.generator.normal(size=workflow.shape).astype(np.float32)
        self.build = getattr(load_example(workflow.example), workflow.trained)

    def run(self):
        """Train, save, and note what was trained."""
        self.folder.mkdir(parents=True)
        tf.keras.backend.clear_session()
        if self.workflow.is_graph or self.kind == "names":
            values, expected = self._in_a_session()
        else:
            values, expected = self._eagerly()
        np.savez(
            self.folder / "facts.npz", feed=self.feed, expected=expected,
            **{str(position): value for position, value in enumerate(values)},
        )  # fmt: skip

    def _eagerly(self):
        model = self.build()
        model(tf.constant(self.model_input))
        optimizer = tf.keras.optimizers.Adam(0.01)
        if self.kind == "fitted":
            model.compile(optimizer=optimizer, loss="mse")
            model.fit(self.model_input, model(self.model_input), epochs=1, verbose=0)
        elif self.kind == "optimizer":
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(model(tf.constant(self.model_input)) ** 2)
            variables = list(model.trainable_variables)
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        variables = list(model.variables if isinstance(model, tf.Module) and not hasattr(model, "weights")
                         else model.weights)  # fmt: skip
        variables = [variable for variable in variables if "seed_generator" not in getattr(variable, "path", "")]
        for variable in variables:
            variable.assign(drawn(self.generator, variable.name, variable.shape))
        if self.kind == "weights":
            model.save_weights(self.prefix if _is_tf_keras() else f"{self.prefix}.weights.h5")
        elif self.kind == "optimizer":
            tf.train.Checkpoint(model=model, optimizer=optimizer, step=tf.Variable(7)).write(self.prefix)
        elif self.kind == "root":
            tf.train.Checkpoint(model).write(self.prefix)
        else:
            tf.train.Checkpoint(model=model).write(self.prefix)
        given = {} if self.workflow.trained == "Linear" else {"training": False}
        outputs = model(tf.constant(self.model_input), **given)
        return [np.asarray(variable) for variable in variables], np.asarray(outputs)

    def _in_a_session(self):
        """Train as TensorFlow 1 did: a graph, a session and a Saver."""
        v1 = tf.compat.v1
        with tf.Graph().as_default(), v1.Session() as session:
            if self.workflow.is_graph:
                os.environ["TF_USE_LEGACY_KERAS"] = "1"  # `tf.layers` needs it; no workflow comes after this one
                fed, outputs = self.build()
                fetched = outputs["probabilities"]
            else:
                fed = v1.placeholder(tf.float32, [None, *self.workflow.shape[1:]])
                model = self.build()
                fetched = model(fed) if self.workflow.trained == "Linear" else model(fed, training=False)
            variables = [variable for variable in v1.global_variables() if "seed_generator" not in variable.name]
            if self.kind == "slots":
                v1.train.AdamOptimizer(0.01).minimize(tf.reduce_sum(outputs["logits"] ** 2))
            session.run(v1.global_variables_initializer())
            for variable in variables:
                variable.load(drawn(self.generator, variable.name, variable.shape), session)
            version = v1.train.SaverDef.V1 if self.kind == "version1" else v1.train.SaverDef.V2
            v1.train.Saver(write_version=version).save(session, self.prefix, write_meta_graph=False)
            return session.run([variables, fetched], {fed: self.model_input})


def _is_tf_keras():
    return os.environ.get("TF_USE_LEGACY_KERAS") == "1"


def main(lab, keras):
    """Train everything."""
    for workflow in WORKFLOWS:
        for kind in workflow.kinds:
            if not kind.startswith("other"):
                Training(workflow, kind, Path(lab) / keras / workflow.example / kind).run()


if __name__ == "__main__":
    main(*sys.argv[1:])
