"""The one folder that imports TensorFlow, inside functions, when it is needed.

Running artifacts
    child_processes    processes of our own: how they start and end
    isolated           runs in a process of their own, and what passes to it
    tensorflow_runner  artifacts in a session: feeds, fetches

From code to a graph without values
    trace              the way: build, find out what it is, trace, write a MetaGraph
    builders           what is a builder, and in which way it is called
    endpoints          what of an object is exported, and what that takes and gives
    keras_models       Keras models as functions for inference
    function_graphs    traced functions as one graph, with what they capture
    graph_code         what builders of graphs of TensorFlow 1 return
    graph_objects      the Keras models whose variables are in such a graph
    chance             constants that come out differently each time; initial_values: who reads them while code builds
    adapted_layers     layers that keep what they computed of variables
    scalar_conditions  conditions that are one true or false
    reached            the nodes and functions that outputs need, and calls into Python among them
    cheap_variables    building without initial values that a checkpoint replaces
    live_objects       which object holds which variable; live_names: what a variable may be called
    live_model         what was traced, and running it with given values

The user's code
    user_code          finds and imports it; no_training: what it may not do then
    code_process       the process that it runs in; code_child: that process; code_messages: what passes between the two
    explain            what an exception means; known_failures: messages and cures; user_lines: where in the user's code
    failed_imports     modules and names that are not there, and Python 2
"""
