"""Configurations of Keras models as Keras writes them, without what says nothing of variables."""


def layer(class_name, name=None, **settings):
    common = {"name": name or class_name.lower(), "trainable": True, "dtype": "float32"}
    return {"class_name": class_name, "config": {**common, **settings}}


def sequential(*layers, name="sequential"):
    return {"class_name": "Sequential", "config": {"name": name, "layers": [layer("InputLayer"), *layers]}}


def functional(*layers, name="functional"):
    return {"class_name": "Functional", "config": {"name": name, "layers": list(layers), "output_layers": []}}
