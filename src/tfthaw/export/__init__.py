"""IR to artifacts on disk, one file a format; each output appears whole or not at all."""
