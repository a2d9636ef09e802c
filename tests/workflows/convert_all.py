"""Convert through Python: a list of conversions in one process, as a notebook would do them one after the other.

`python -m workflows.convert_all JOBS.json`; a job has `example`, `code`, `way` (`live` or `code`), `destination`,
`options` and `answer`, the file that gets the result, or the error.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

import tfthaw
from tfthaw.errors import TfthawError
from workflows.table import EXAMPLES
from workflows.train import load_example


def convert(job):
    """Do one job; return what `--json` would print, or the error."""
    options = dict(job["options"])
    tf.keras.backend.clear_session()  # as in a notebook that was just started, where nothing is called `sequential_5`
    try:
        if job["way"] == "code":
            source = options.pop("checkpoint")
            options["code"] = f"{EXAMPLES / job['example']}.py:{job['code']}"
            return tfthaw.convert(source, job["destination"], **options).as_dict()
        source = getattr(load_example(job["example"]), job["code"])
        if isinstance(source, type) or job["code"] == "build_model":
            source = source()
        variables = list(getattr(source, "variables", ()))
        before = state(variables)
        try:
            return tfthaw.convert(source, job["destination"], **options).as_dict()
        finally:
            assert state(variables) == before
    except TfthawError as error:
        return {"error": type(error).__name__, "message": str(error)}


def state(variables):
    """Return what a conversion must leave alone: the model's values, and TensorFlow's own switches."""
    values = [tf.convert_to_tensor(variable).numpy().tobytes() for variable in variables]
    return values, tf.executing_eagerly(), len(tf.compat.v1.get_default_graph().get_operations())


def main(path):
    """Do all jobs of a file."""
    for job in json.loads(Path(path).read_text()):
        Path(job["answer"]).write_text(json.dumps(convert(job)))


if __name__ == "__main__":
    main(sys.argv[1])
