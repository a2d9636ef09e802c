"""tfthaw against TensorFlow's own tools, in one run on one machine (`make bench`, or `python -m benchmarks`).

Everything is compared as a ratio of two medians taken in turns, with peak memory beside it. What is measured and what
it must reach is data, in `rows`. Timings never decide a test.
"""
