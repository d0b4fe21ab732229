"""What Python code calls: `compress.run`, `auto`, `plan`, `apply`, `inspect`, `compare`, `load` and `prune`.

The functions of the command, under its names; `import compress` finds them here when one is first asked for.
"""

from compress.api.loading import load
from compress.api.looking import compare, inspect
from compress.api.module import Pruned, prune
from compress.api.options import Options
from compress.api.pruning import apply, plan, run
from compress.api.searching import auto

__all__ = ["Options", "Pruned", "apply", "auto", "compare", "inspect", "load", "plan", "prune", "run"]
