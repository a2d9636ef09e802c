"""The export workflows: from code and a checkpoint to what users load, in fresh processes, under both Keras."""
