"""compress plan --schedule: what sparse training would give."""

from __future__ import annotations

from typing import Any

from compress import console
from compress.cli.app import Talk
from compress.cli.prune import planning
from compress.train.scaling import BESIROGLU, ScalingLaw


@planning.command(name="--schedule")
def schedule(
    *,
    parameters: str,
    tokens: str,
    sparsity: str,
    start: str = "25%",
    end: str = "75%",
    prunable: str = "100%",
    steps: int | None = None,
    law: ScalingLaw = BESIROGLU,
    talk: Talk = Talk(),
) -> None:
    """Foresee the loss of training that prunes gradually, from the average of its active parameters.

    Parameters
    ----------
    parameters
        Of the model before it is pruned: 1B, 350M.
    tokens
        To train on: 20B.
    sparsity
        Share of the prunable parameters that is zero in the end.
    start
        Share of the training compute after which pruning starts.
    end
        Share of the training compute after which pruning has ended.
    prunable
        Share of the parameters that may be pruned: linear layers, not the embeddings.
    steps
        Of the optimizer; shown beside the tokens.
    law
        Coefficients of L = E + A / N^alpha + B / D^beta, in nats a token.
    """
    from compress.errors import InputError
    from compress.recipe.quantity import count, fraction
    from compress.train.ramp import CubicRamp
    from compress.train.scaling import SparseRun

    if steps is not None and steps < 1:
        raise InputError(f"--steps {steps}: at least 1")
    shares = {"sparsity": sparsity, "start": start, "end": end}
    ramp = CubicRamp(*(fraction(f"--{name}", text) for name, text in shares.items()))
    run = SparseRun(
        count("--parameters", parameters), count("--tokens", tokens), ramp, fraction("--prunable", prunable)
    )
    found = run.forecast(law)
    if steps is not None:
        for row in found["schedule"]:
            row["step"] = round(row["progress"] * steps)
    console.result(_shown(found), found)


def _shown(found: dict[str, Any]) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table

    from compress.report.rows import count

    runs = Table(box=box.SIMPLE_HEAD, title=f"Trained on {count(found['tokens'])} tokens", pad_edge=False)
    runs.add_column("training")
    for name in ("loss, nats", "parameters", "at the end", "FLOPs", "saved"):
        runs.add_column(name, justify="right")
    labels = {"dense": "dense", "sparse": "pruned gradually", "small": "dense, as small"}
    for name, label in labels.items():
        run = found[name]
        saved = 1 - run["compute"] / found["dense"]["compute"]
        runs.add_row(
            label,
            f"{run['loss']:.4f}",
            count(run["average_parameters"]),
            count(run["final_parameters"]),
            f"{run['compute']:.2e}",
            f"{saved:.1%}",
        )
    runs.caption = (
        "parameters are those of the average over the run\n"
        "saved where zeros cost nothing; in dense matrices they cost what any weight does"
    )
    course = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    steps = "step" in found["schedule"][0]
    for name in ("trained", "tokens", *(["step"] if steps else []), "sparsity", "parameters"):
        course.add_column(name, justify="right")
    for row in found["schedule"]:
        step = [str(row["step"])] if steps else []
        seen = (f"{row['progress']:.1%}", count(row["tokens"]))
        course.add_row(*seen, *step, f"{row['sparsity']:.1%}", count(row["parameters"]))
    return Group(runs, course)
