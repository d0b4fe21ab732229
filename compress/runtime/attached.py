"""A model that obeys the runtime rules of its config, for a while or for good."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from types import TracebackType
from weakref import WeakKeyDictionary

from torch import nn

from compress.runtime.config import Asked, runtime_rules


class Attached:
    """What `attach` returns. `counts`: kind of rule → what it has counted so far, such as `visits` and `skipped`."""

    def __init__(self, model: nn.Module, rules: list[Asked]) -> None:
        self.counts: dict[str, Counter[str]] = {asked.kind: Counter() for asked in rules}
        self._model, self._rules = model, rules
        self._undo = ExitStack()
        self._enter()
        _ON.setdefault(model, []).append(self)

    def detach(self) -> None:
        """Put the model back as it was found; a second call does nothing.

        Attachments may end in any order: those that came later than this one stay.
        """
        stack = _ON.get(self._model, [])
        if self not in stack:
            return
        place = stack.index(self)
        later = stack[place + 1 :]
        for one in reversed(stack[place:]):
            one._undo.close()
        del stack[place]
        for one in later:
            one._enter()

    def __enter__(self) -> Attached:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _enter(self) -> None:
        """All rules or, when one raises, none."""
        with ExitStack() as undo:
            for asked in self._rules:
                asked.rule.attach(self._model, undo, self.counts[asked.kind])
            self._undo = undo.pop_all()


_ON: WeakKeyDictionary[nn.Module, list[Attached]] = WeakKeyDictionary()
"""Model → its attachments, oldest first."""


def attach(model: nn.Module) -> Attached:
    """Have a transformers model obey the runtime rules of its config: until the `with` block ends, or for good.

        with compress.runtime.attach(model) as attached:
            model.generate(…)
        attached.counts["skip_experts"]["skipped"]

        attached = compress.runtime.attach(model)   # until attached.detach()

    A model without a config, or whose config asks for nothing, is left as it is; `counts` is empty then. Where
    attachments nest, the innermost one acts and counts. A block that raises restores the model too. Raises
    compress.errors.ModelError, naming the key, for rules that this program does not know or that do not fit the model,
    which is then left as it is.
    """
    config = getattr(model, "config", None)
    folder = getattr(config, "name_or_path", "")
    where = f"{folder}/config.json" if folder else "config.json"
    return Attached(model, runtime_rules({} if config is None else vars(config), where))
