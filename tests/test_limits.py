"""The limits are explicit values, not global state."""

import dataclasses

import pytest

from tfthaw.limits import DEFAULT_LIMITS, Limits


def test_default_is_the_default():
    assert Limits() == DEFAULT_LIMITS


def test_limits_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        DEFAULT_LIMITS.max_rank = 3


def test_every_limit_is_positive_and_documented():
    for field in dataclasses.fields(Limits):
        assert getattr(DEFAULT_LIMITS, field.name) > 0
        assert f"{field.name}:" in Limits.__doc__
