"""Graph to graph, one file a pass.

A pass takes a graph and gives a new one with an account of what it did; it never changes its argument, nor any tensor.
"""
