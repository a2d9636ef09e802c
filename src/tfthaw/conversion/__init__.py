"""Conversion: any artifact in, any format that it can become out, proved.

options     what a user may ask
selection   which tensors go in and come out
graphs      the steps into formats that carry a graph
weights     which tensors go into formats that carry weights alone
converting  `convert`: open, prepare, write, prove
result      what comes back
"""
