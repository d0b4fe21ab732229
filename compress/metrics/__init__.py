"""What quality is measured by: how a batch's output is read, readings are merged, and two models' are compared.

A task chooses a metric (`compress.tasks`); `compress.metrics.kind` is the contract, `compress.metrics.mean` the metric
for any number that a sample has.
"""
