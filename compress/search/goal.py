"""How small a model is to become, in any of the ways to say it, as the one budget that all candidates meet."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from compress.errors import BudgetError, InputError
from compress.model.model import Model
from compress.recipe.quantity import count, share, size

WAYS = "--remove 30%, --params 100M, --bytes 200MB or --latency 0.6"


@dataclass(frozen=True)
class Goal:
    """Just one of them: the share of the blocks' parameters to `remove`, how many `params` or `bytes` may be left of
    the whole model, or what share of the `latency` of its projections."""

    remove: str | None = None
    params: str | None = None
    bytes: str | None = None
    latency: str | None = None

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if value is not None]
        if len(given) != 1:
            wrong = " and ".join(f"--{name}" for name in given) or "nothing"
            raise InputError(f"{wrong} says how small the model is to become; give one of {WAYS}")

    def kept(self, model: Model) -> tuple[str, float]:
        """What is measured, `params` or `latency`, and the share of it that stays of the whole model.

        Raises InputError for what is no such number, BudgetError where there would be nothing to do.
        """
        graph = model.graph
        total = graph.parameters()
        if self.latency is not None:
            return "latency", share("--latency", self.latency)
        if self.remove is not None:
            blocks = sum(prod(shape) for name, shape in graph.shapes({}).items() if graph.block_of(name) is not None)
            return "params", 1 - share("--remove", self.remove) * blocks / total
        if self.params is not None:
            now, wanted, unit = total, count("--params", self.params), "parameters"
        else:
            now, wanted, unit = model.checkpoint.bytes, size("--bytes", str(self.bytes)), "bytes"
        if wanted >= now:
            raise BudgetError(
                f"nothing to remove: {wanted:,.0f} {unit} may be left and {now:,} are there; ask for less"
            )
        return "params", wanted / now
