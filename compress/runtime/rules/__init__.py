"""Kinds of runtime rules, one a file: what a config may ask of whoever runs the model.

A kind is a frozen, keyword-only dataclass registered with `compress.registry.rules.add`; its fields are the rule's keys
in config.json, checked by their annotations. It has the methods of `compress.runtime.config.Rule`.
"""
