"""An ONNX file as a model: its graph runs in torch, node by node, and can be traced, calibrated and cut like any other.

`file` opens and writes files, `module` makes the graph a torch module whose operators are the functions in `operators`,
`sizes` finds the numbers in the graph that follow from widths.
"""
