"""Conversion: any artifact in, any format that it can become out, proved.

converting         `convert`: open, prepare, write, prove; result: what comes back; options: what a user may ask
prepared           a model on its way: what goes in and out is chosen (selection), the rest is pruned; unfed: what would
                   be fed by nobody; bridging: for older TensorFlows
values             where variables take their values from; freezing: into constants; with_saver: with variables
tf2_saved_model    into the style of TensorFlow 2; main_graph, initialisation, trainable, function_notes: its parts
whole_saved_model  SavedModels that are kept whole
weights, keras     formats of weights alone, and Keras files; keras_sources: what a source says of a Keras model
from_code          the Python of a model as source; code_values: which values are those of its variables
"""
