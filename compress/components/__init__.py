"""Pipelines of several models in one folder, as diffusers saves them: what is in them, and how far each can be pruned.

A pipeline's components are modules like others; this package knows their folder, what each is called with, and how to
find the share before which its output breaks down. `compress.api.pipelines` prunes them.
"""
