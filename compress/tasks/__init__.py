"""Tasks: what a model puts out and how good that is, one file each.

A task is a class that derives from `compress.tasks.kind.Task` and registers itself with `compress.registry.tasks`.
`compress.tasks.choose.task_of` finds the one that fits a model, once; nothing else in the package asks what kind of
model it has.
"""
