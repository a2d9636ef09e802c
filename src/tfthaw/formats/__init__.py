"""File formats: bytes to records and back, one file a format.

Nothing here knows what a graph or a variable means; that is the business of `tfthaw.ir` and `tfthaw.serde`. Modules of
this folder import from the floors below it, and from each other only where one format is built on another (a checkpoint
on the table).
"""
