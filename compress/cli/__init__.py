"""The command `compress`. Nothing heavy is imported before a command needs it."""

from compress.cli.call import call, main

__all__ = ["call", "main"]
