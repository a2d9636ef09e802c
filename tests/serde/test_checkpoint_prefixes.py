"""Checkpoints whose prefix is also the name of something else."""

import numpy as np
import pytest

from tfthaw.export.delivery import Delivery
from tfthaw.export.weights import write_checkpoint
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor


def write(prefix, value):
    write_checkpoint({"w": ArrayTensor(np.array(value, np.float32))}, prefix, Delivery())


@pytest.mark.parametrize("there", ["directory", "file", "state"])
def test_a_prefix_that_is_meant_as_a_checkpoint_wins_over_what_has_its_name(tmp_path, there):
    prefix = tmp_path / ("checkpoint" if there == "state" else "model")
    write(prefix, 1)
    if there == "directory":
        write(prefix / "ckpt-5", 2)
    elif there == "file":
        np.savez(tmp_path / "other.npz", w=np.zeros(1))
        (tmp_path / "other.npz").rename(prefix)
    else:
        prefix.write_text('model_checkpoint_path: "other"\n')
    with open_artifact(prefix, is_checkpoint=True) as artifact:
        assert artifact.tensors["w"].numpy() == 1
        assert not artifact.is_latest
    if there != "state":
        with open_artifact(prefix) as artifact:
            assert artifact.tensors["w"].numpy() != 1
