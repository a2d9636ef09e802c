"""What a model means: graphs, functions, variables, signatures; no bytes, no protobuf, no TensorFlow."""
