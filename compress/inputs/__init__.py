"""Inputs: what models read, a kind a file: the smallest forward to trace, small samples to verify by, calibration data.

A kind is a class that derives from `compress.inputs.kind.Inputs` and registers itself with `compress.registry.inputs`.
`compress.inputs.choose.inputs_of` finds the one that fits a model; nothing else in the package knows a model's
inputs by name. Batches are dictionaries of tensors whose first dimension is the sample (`compress.inputs.batch`).
"""
