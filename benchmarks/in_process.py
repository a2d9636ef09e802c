"""Work measured inside a process, without its start: `python -m benchmarks.in_process WORK PREFIX` prints seconds.

Each work runs once to warm up and then five times; the median counts. TensorFlow's readers hand out arrays of their
own, so where nothing else makes tfthaw touch every byte, its views of the mapped file are copied too.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

REPETITIONS = 5


def tensorflow_load(prefix: str) -> Callable[[], None]:
    import tensorflow as tf

    def work() -> None:
        tf.train.load_checkpoint(prefix).get_variable_to_shape_map()

    return work


def tensorflow_reader(prefix: str) -> Callable[[], None]:
    from tensorflow.python.training import py_checkpoint_reader

    def work() -> None:
        py_checkpoint_reader.NewCheckpointReader(prefix)

    return work


def tensorflow_read(prefix: str) -> Callable[[], None]:
    import tensorflow as tf

    def work() -> None:
        reader = tf.train.load_checkpoint(prefix)
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)

    return work


def tfthaw_open(prefix: str) -> Callable[[], None]:
    import tfthaw

    def work() -> None:
        with tfthaw.open(prefix) as artifact:
            for variable in artifact.variables.values():
                _ = variable.shape

    return work


def tfthaw_read(prefix: str) -> Callable[[], None]:
    import tfthaw

    def work() -> None:
        with tfthaw.open(prefix) as artifact:
            for variable in artifact.variables.values():
                variable.numpy()

    return work


def tfthaw_read_unchecked(prefix: str) -> Callable[[], None]:
    import numpy as np

    import tfthaw

    def work() -> None:
        with tfthaw.open(prefix) as artifact:
            for variable in artifact.variables.values():
                np.array(variable.numpy(check=False))

    return work


WORKS = {
    "tensorflow-load": tensorflow_load,
    "tensorflow-reader": tensorflow_reader,
    "tensorflow-read": tensorflow_read,
    "tfthaw-open": tfthaw_open,
    "tfthaw-read": tfthaw_read,
    "tfthaw-read-unchecked": tfthaw_read_unchecked,
}


def main() -> int:
    name, prefix = sys.argv[1:]
    work = WORKS[name](prefix)
    work()
    seconds = []
    for _ in range(REPETITIONS):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": statistics.median(seconds)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
