"""The demo model: a classifier of 8x8 handwritten digits, as a TensorFlow 1 training script leaves it.

Paths only; nothing is read here. The files are outputs of TensorFlow itself, written by `tools/make_demo_model.py`: a
checkpoint with optimizer slots and moving averages, its MetaGraph with the training ops and no signature, held-out
examples that the model never saw, and what TensorFlow measured on them right after training.

Source of the images: "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository, CC BY 4.0), as scikit-learn ships it.
"""

from pathlib import Path

DIRECTORY = Path(__file__).parent
"""The folder with every file of the demo."""

META_GRAPH = DIRECTORY / "model.ckpt-1000.meta"
"""The MetaGraph; its checkpoint lies beside it. Input `images` float32[?, 8, 8, 1], output `probabilities`."""

HELD_OUT = DIRECTORY / "heldout.npz"
"""450 held-out examples: `images` float32[450, 8, 8, 1] within 0..1, `labels` int64[450]."""

LABELS = DIRECTORY / "labels.txt"
"""The name of each class, one a line, in the order of `probabilities`."""

FACTS = DIRECTORY / "facts.json"
"""Names of inputs and outputs, and the accuracy that TensorFlow measured on the held-out examples."""

__all__ = ["DIRECTORY", "FACTS", "HELD_OUT", "LABELS", "META_GRAPH"]
