"""What the process of the user's code answers when the code raises what is no ordinary error."""

import pytest

from tfthaw.runtime.code_child import _Child


class Unspeakable(Exception):
    """Says itself in words that raise."""

    def __str__(self):
        raise ValueError("no words")


@pytest.mark.parametrize(("raised", "said"), [
    (KeyboardInterrupt(), "the code raises KeyboardInterrupt"),
    (GeneratorExit(), "cannot trace the model: GeneratorExit"),
    (Unspeakable(), "cannot trace the model: Unspeakable"),
    (SystemExit(3), "the code ends the process (sys.exit(3))"),
])  # fmt: skip
def test_whatever_the_code_raises_is_one_error(monkeypatch, raised, said):
    def trace(request):
        raise raised

    child = _Child()
    monkeypatch.setattr(child, "_trace", trace)
    answer = child.answer({"do": "trace", "code": "train.py:build", "graph_mode": False})

    assert said in answer["error"]["message"]
    assert answer["needs"] is None
