"""What the tests of formats share."""

import h5py
import pytest


@pytest.fixture
def make(tmp_path):
    """Write an HDF5 file with a function and return its path."""

    def write(fill, **options):
        path = str(tmp_path / "x.h5")
        with h5py.File(path, "w", **options) as file:
            fill(file)
        return path

    return write
