"""tfthaw: any TensorFlow model artifact in, whatever you need out, with proof that it is the same model."""

__version__ = "0.1.0"
