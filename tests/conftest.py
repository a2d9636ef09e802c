"""What tests of every floor share."""

import warnings

import pytest


@pytest.fixture(scope="session")
def tf():
    """TensorFlow, imported when the first test asks for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports warn; ours may not
        import tensorflow
    return tensorflow
