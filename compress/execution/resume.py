"""Finished steps of a run, kept beside its output until that is whole, so that an interrupted run can go on."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path

from compress.checkpoint import standing
from compress.checkpoint.folder import to_disk
from compress.checkpoint.leftovers import left_steps
from compress.checkpoint.target import STEPS, hidden_name, placed
from compress.console import say
from compress.errors import InputError
from compress.execution.document import PlannedStep
from compress.execution.run import Run
from compress.version import __version__

STATE = "resume.json"
"""Whose steps these are and what they decided; written when a step is whole, so that what it names is there."""


class OtherRunError(InputError):
    """What was kept is another run's; it stays."""


@contextmanager
def finished_steps(out: Path) -> Iterator[Path]:
    """Yields the folder that the steps of a run into `out` but the last are written to, which is not made yet.

    It stays only where the run is interrupted or killed, and has finished a step.
    """
    target = placed(out)
    place = target.with_name(hidden_name(target, os.getpid()) + STEPS)
    try:
        yield place
    except OtherRunError:
        raise
    except Exception:
        shutil.rmtree(place, ignore_errors=True)
        raise
    except BaseException:
        if not (place / STATE).exists():
            shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place, ignore_errors=True)


def keep(run: Run, place: Path) -> None:
    """The steps so far are finished; the newest one's model lies in `place`/step-N and earlier ones go."""
    number, total = len(run.steps), len(run.recipe.steps)
    to_disk(place / f"step-{number}")
    state = {
        "key": _key(run),
        "steps": [asdict(step) for step in run.steps],
        "tally": run.tally.state(),
        "seconds": run.seconds,
    }
    new = place / f"{STATE}.new"
    new.write_text(json.dumps(state, default=str), encoding="utf-8")
    new.replace(place / STATE)
    standing.keep(f"step {number} of {total}")
    shutil.rmtree(place / f"step-{number - 1}", ignore_errors=True)


def restore(run: Run, place: Path, out: Path) -> int:
    """Take over what an interrupted run into `out` has finished; returns the number of steps.

    Raises OtherRunError where that was another recipe, another model or other options.
    """
    found = [path for path in left_steps(placed(out)) if (path / STATE).exists()]
    if not found:
        say("nothing to resume: no finished step was kept; statistics that were kept are used")
        return 0
    for path in found:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        if state["key"] != _key(run):
            continue
        if path != place:
            shutil.rmtree(place, ignore_errors=True)
            path.rename(place)
        run.steps[:] = [PlannedStep(**step) for step in state["steps"]]
        run.tally.restore(state["tally"])
        run.seconds.update(state["seconds"])
        number, total = len(run.steps), len(run.recipe.steps)
        for unfinished in place.glob("step-*"):
            if unfinished.name != f"step-{number}":
                shutil.rmtree(unfinished)
        run.stages.behind(number)
        standing.keep(f"step {number} of {total}")
        say(f"resuming behind step {number} of {total}")
        for other in found:
            if other not in (path, place):
                shutil.rmtree(other, ignore_errors=True)
        return number
    why = "was of another recipe, model, device or version"
    raise OtherRunError(f"--resume: what was kept beside {out} {why}; run the same command again, or without --resume")


def _key(run: Run) -> str:
    """Stands for all that decides what a step's result is; how it is measured afterwards may differ."""
    options = run.options
    parts = [
        __version__,
        run.recipe.dump(),
        run.first.checkpoint.digest,
        run.given.dump() if run.given else "",
        options.where,
        repr(options.include),
        repr(options.trust_remote_code),
    ]
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
