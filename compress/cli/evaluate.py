"""compress eval: what a folder is worth and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from compress import console
from compress.cli.app import Flag, Input, Talk, app


@app.command(name="eval")
def evaluate(
    model: str,
    /,
    *,
    tasks: str | None = None,
    task_folder: Path | None = None,
    limit: int | None = None,
    data: str | None = None,
    length: int = 256,
    samples: int = 64,
    latency: Flag = False,
    card: Flag = False,
    against: str | None = None,
    device: str = "auto",
    opening: Input = Input(),
    talk: Talk = Talk(),
) -> None:
    """Measure perplexity, accuracy or similarity of embeddings, benchmark tasks, latency, memory and size of MODEL.

    Parameters
    ----------
    model
        A folder or a hub id.
    tasks
        Names of lm-eval's tasks, with commas between; docs_order and docs_word ship and need no network.
    task_folder
        A folder with more task YAMLs.
    limit
        The most questions of each task.
    data
        What quality is measured on: a source's name (manuals by default, photos for models of images, captions and
        speech likewise), a file or a hub id; for a classifier a .jsonl of text and label, of images digits or a
        folder with a folder for each class.
    length
        Tokens of a sequence. Perplexities compare only at equal length.
    samples
        Sequences, or labelled texts.
    latency
        Time prefill, decoding and throughput too; with --against both models in turns.
    card
        Write the tasks' scores into the model card of the folder MODEL, which `compress push` sends.
    against
        The dense model, to measure beside MODEL and to compare embeddings with.
    """
    from compress.errors import InputError
    from compress.evaluate.harness import Harness
    from compress.recipe.schema import MOST_TOKENS

    for name, value in (("length", length), ("samples", samples), ("limit", limit)):
        if value is not None and value < 1:
            raise InputError(f"--{name} {value}: is no number of {'tokens' if name == 'length' else name}; at least 1")
    if samples * length > MOST_TOKENS:
        raise InputError(
            f"--samples {samples} of --length {length}: more than {MOST_TOKENS:,} tokens; lower one of them"
        )
    names = tuple(name.strip() for name in (tasks or "").split(",") if name.strip())
    if card and not (names and (Path(model) / "README.md").is_file()):
        raise InputError(f"--card: writes the scores of --tasks into {model}/README.md; both must be there")
    harness = Harness(names, task_folder) if names else None  # a wrong name is told before torch is imported

    from compress.checkpoint.open import open_checkpoint
    from compress.evaluate.folder import Questions, evaluate_folder
    from compress.execution.run import Options
    from compress.report.card import add_scores
    from compress.report.evaluation import evaluation_table

    questions = Questions(data, samples, length, harness, limit, latency, device=Options(device).where)
    more: dict[str, Any] = {"trust_remote_code": opening.trust_remote_code, "allow_pickle": opening.allow_pickle}
    opened = open_checkpoint(model, revision=opening.revision, base=opening.base, **more)
    dense = open_checkpoint(against, **more) if against is not None else None
    found = evaluate_folder(opened, questions, dense)
    if card:
        add_scores(Path(model), found["tasks"])
    console.result(evaluation_table(found), found)
