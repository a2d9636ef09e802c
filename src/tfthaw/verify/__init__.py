"""Proof: what was written is what was read."""
