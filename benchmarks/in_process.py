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


def tensorflow_list(prefix: str) -> Callable[[], None]:
    import tensorflow as tf

    def work() -> None:
        tf.train.load_checkpoint(prefix).get_variable_to_shape_map()

    return work


def tensorflow_open(prefix: str) -> Callable[[], None]:
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
    from tfthaw.formats.tensor_bundle import BundleReader

    def work() -> None:
        BundleReader(prefix).keys()

    return work


def tfthaw_list(prefix: str) -> Callable[[], None]:
    from tfthaw.formats.tensor_bundle import BundleReader

    def work() -> None:
        {key: entry.shape for key, entry in BundleReader(prefix).entries.items()}

    return work


def tfthaw_read(prefix: str) -> Callable[[], None]:
    from tfthaw.formats.tensor_bundle import BundleReader

    def work() -> None:
        with BundleReader(prefix) as reader:
            for tensor in reader.tensors.values():
                tensor.numpy()

    return work


def tfthaw_read_unchecked(prefix: str) -> Callable[[], None]:
    import numpy as np

    from tfthaw.formats.tensor_bundle import BundleReader
    from tfthaw.tensors import FileTensor

    def work() -> None:
        with BundleReader(prefix) as reader:
            for tensor in reader.tensors.values():
                if not isinstance(tensor, FileTensor):
                    raise TypeError(f"expected tensors stored whole, found {tensor!r}")
                np.array(tensor.numpy(check=False))

    return work


WORKS = {
    "tensorflow-list": tensorflow_list,
    "tensorflow-open": tensorflow_open,
    "tensorflow-read": tensorflow_read,
    "tfthaw-open": tfthaw_open,
    "tfthaw-list": tfthaw_list,
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
