"""The two pages: how many models come how far, what stops the others, and what is pinned."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from matrix.kind import Entry, Kind

Record = dict[str, Any]
MADE = "<!-- printed by tools/bench/coverage.py --read -->\n"
MEANT = {
    "built": "a tiny model with random weights is built",
    "traced": "its graph is inferred, and all its tensors have their place on disk",
    "free": "at least 60 % of its blocks' parameters lie in free families",
    "halved": "half of its heads and channels are removed, by magnitude",
    "verified": "what was written is verified before its folder appears",
    "coupled": "stock models compute the same with these cut as with these zero, to 1e-5 of the largest value",
    "opened": "the stock loader opens the folder in a process without compress: no key missing, the same output",
    "onnx": "its export computes the same in ONNX Runtime; asked of some models only",
    "peer": "Torch-Pruning 1.6.1 alone: more than a tenth of the parameters went and the forward runs, right or not",
}
LONGEST = 170
"""Characters of a reason that are shown."""


def coverage_page(known: Mapping[str, Kind], found: Mapping[str, Record]) -> str:
    """docs/coverage.md."""
    text = [
        MADE,
        "# Coverage",
        "What holds for every architecture that was tried, each as a tiny model with random weights. "
        "`python tools/bench/coverage.py` examines them and prints this page; [pinned](pinned.md) has what is pinned. "
        "A column counts the models for which it and all before it hold; the last one asked for is what passing means.",
    ]
    for kind in known.values():
        rows = _grouped(kind, found)
        columns = [
            *kind.columns,
            *(["peer"] if any("peer" in (r or ()) for group in rows.values() for _, r in group) else []),
        ]
        text += [f"## {kind.name}", "\n".join(f"- **{name}**: {MEANT[name]}" for name in columns if name in MEANT)]
        text += [_summary(kind, rows, columns), *_graph_time(rows)]
        text += ["### What fails, and why", *_failures(kind, rows)]
    return "\n\n".join(text) + "\n"


def pinned_page(known: Mapping[str, Kind], found: Mapping[str, Record]) -> str:
    """docs/pinned.md."""
    text = [
        MADE,
        "# What is pinned",
        "Parameters of blocks that lie in no family that may lose groups (heads, queries, width of a head, channels, "
        "experts), as a share of all parameters of the blocks. The width of the residual stream and whole layers are "
        "left out of account. [Coverage](coverage.md) says how far each model comes.",
    ]
    for kind in known.values():
        traced = [r for group in _grouped(kind, found).values() for _, r in group if r and r.get("traced")]
        if not traced:
            continue
        models: dict[str, list[float]] = defaultdict(list)
        for record in traced:
            for reason, share in record["pinned"]:
                models[reason].append(share)
        order = sorted(models, key=lambda reason: -sum(models[reason]))
        rows = [
            f"| {_short(reason)} | {len(models[reason])} | {sum(models[reason]) / len(traced):.1%} |"
            for reason in order
            if sum(models[reason]) / len(traced) >= 0.0005
        ]
        text += [f"## {kind.name}", f"Over the {len(traced)} models that are traced:"]
        text += ["\n".join(["| why | models | mean share |", "| --- | --: | --: |", *rows])]
        lines = [
            f"- `{r['name']}`: {r['share']:.0%} free; "
            + "; ".join(f"{share:.0%} {_short(why)}" for why, share in r["pinned"])
            for r in sorted(traced, key=lambda r: r["share"])
            if r["share"] < 0.95 and r["pinned"]
        ]
        text += ["Models of which less than 95 % is free:", "\n".join(lines)] if lines else []
    return "\n\n".join(text) + "\n"


Rows = dict[str, list[tuple[Entry, Record | None]]]


def _grouped(kind: Kind, found: Mapping[str, Record]) -> Rows:
    """Group → its models, each with what was found of it; None where it has not been examined."""
    rows: Rows = defaultdict(list)
    for entry in kind.entries():
        rows[entry.group].append((entry, found.get(f"{kind.name}/{entry.name}")))
    return rows


def _summary(kind: Kind, rows: Rows, columns: list[str]) -> str:
    head = ["group", "models", *columns, "passes", "s", "commit"]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 2) + " --- |"]
    for group, own in [*rows.items(), ("**all**", [pair for pairs in rows.values() for pair in pairs])]:
        examined = [(entry, record) for entry, record in own if record is not None]
        if not examined:
            lines.append(f"| {group} | {len(own)} |" + " |" * (len(columns) + 2) + " not run |")
            continue
        counts = [_count(kind, name, examined) for name in columns]
        passing = sum(failure(kind, entry, record) is None for entry, record in examined)
        commits = Counter(record["commit"] for _, record in examined)
        said = ", ".join(name for name, _ in commits.most_common(3)) + (", …" if len(commits) > 3 else "")
        ran = f"{len(own)}" if len(examined) == len(own) else f"{len(examined)} of {len(own)}"
        seconds = median(record["seconds"] for _, record in examined)
        cells = [group, ran, *counts, f"{passing} ({passing / len(examined):.0%})", f"{seconds:.1f}", said]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _graph_time(rows: Rows) -> list[str]:
    """How long the graph takes beside the peer's, of the models where both have one."""
    records = [record or {} for own in rows.values() for _, record in own]
    pairs = [
        (r["seconds_of_trace"], r["peer_seconds"]) for r in records if {"seconds_of_trace", "peer_seconds"} <= set(r)
    ]
    if not pairs:
        return []
    mine, other = (median(column) for column in zip(*pairs, strict=True))
    ratio = median(own / peer for own, peer in pairs if peer)
    return [
        f"The graph takes {mine:.2f} s in the median of the {len(pairs)} models of which Torch-Pruning has one too, "
        f"Torch-Pruning's {other:.2f} s; the median ratio is {ratio:.2f}."
    ]


def _count(kind: Kind, column: str, own: Iterable[tuple[Entry, Record]]) -> str:
    """For how many it and all columns before it hold; of a column asked of some only, of how many."""
    if column == "peer":
        tried = [record for _, record in own if "peer" in record]
        return f"{sum(record['peer'] for record in tried)} of {len(tried)}" if tried else ""
    reached = [(entry, failure(kind, entry, record)) for entry, record in own]
    place = {name: i for i, name in enumerate(kind.columns)}
    asked = [failed for entry, failed in reached if column in kind.asked(entry)]
    holding = sum(failed is None or place[failed] > place[column] for failed in asked)
    if column not in kind.marked:
        return str(holding)
    return f"{holding} of {len(asked)}" if asked else ""


def failure(kind: Kind, entry: Entry, record: Record) -> str | None:
    """The first column that does not hold; None for a model that passes."""
    return next((name for name in kind.asked(entry) if not record.get(name)), None)


def _failures(kind: Kind, rows: Rows) -> list[str]:
    """By group and column, reasons with the models that they stop."""
    text = []
    for group, own in rows.items():
        why: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for entry, record in own:
            if record is not None and (failed := failure(kind, entry, record)) is not None:
                said = record.get(f"{failed}_why") or record.get("why") or "nothing was said"
                if failed == "free" and record.get("pinned"):
                    said = f"pinned mostly as {record['pinned'][0][0]}"
                why[failed][_alike(said, entry)].append(entry.name)
        if not why:
            continue
        lines = [f"**{group}**", ""]
        for column in kind.columns:
            for reason, names in sorted(why.get(column, {}).items(), key=lambda item: (-len(item[1]), item[0])):
                shown = ", ".join(f"`{name}`" for name in names)
                lines.append(f"- not {column}: {_short(reason)}: {shown}")
        text.append("\n".join(lines))
    return text or ["Nothing."]


def _alike(said: str, entry: Entry) -> str:
    """A reason without what differs from model to model: its class, numbers of blocks, the folder."""
    said = re.sub(r"/\S*/coverage-\w+/", "", said)
    said = said.replace(entry.cls, "the class") if entry.cls else said
    return re.sub(r"(?<=\.)\d+(?=\.)", "*", said)


def _short(reason: str) -> str:
    reason = reason.replace("|", r"\|").replace("<", "&lt;")
    return reason if len(reason) <= LONGEST else reason[:LONGEST].rstrip() + " …"
