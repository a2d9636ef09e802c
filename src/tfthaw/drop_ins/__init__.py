"""Commands that stand in for scripts of others: what their flags mean, in terms of a conversion.

freeze_graph       TensorFlow's `freeze_graph`; freeze_graph_sources: which of its flags say where the graph is;
                   initializer_nodes: what its `--initializer_nodes` set
inference_graph    the Object Detection API's `export_inference_graph.py` (TensorFlow 1)
inference_module   its `exporter_main_v2.py` (TensorFlow 2)
inference_*        what the two share: options, input, outputs, values, writing, proof, directory, result
"""
