"""The one folder that imports TensorFlow, inside functions, when it is needed: running artifacts."""
