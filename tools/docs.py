"""Tables in docs/ that say what the code says: recipe keys, parts of the registries, recipes that ship.

    python tools/docs.py            # write them anew
    python tools/docs.py --check    # exit 1 where a page is stale

A page holds `<!-- table: NAME -->`; what stands from there to `<!-- end -->` is made here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from doc_tables import keys, parts, shipped

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs"
REGION = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

TABLES: dict[str, Callable[[], str]] = {
    "recipe": keys.recipe,
    "calibrate": keys.calibrate,
    "steps": keys.steps,
    "exports": keys.exports,
    "criteria": parts.criteria,
    "allocators": parts.allocators,
    "ratios": parts.ratios,
    "repairs": parts.repairs,
    "statistics": parts.statistics,
    "sources": parts.sources,
    "recipes": shipped.recipes,
    "token-presets": shipped.token_presets,
    "token-stage": keys.token_stage,
    "token-scores": parts.token_scores,
    "token-selects": parts.token_selects,
    "token-residuals": parts.token_residuals,
}


def page(text: str) -> str:
    """The page with its tables as they should be. Raises KeyError for a table that there is not."""
    return REGION.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}\n{found[3]}", text)


def stale(folder: Path = PAGES) -> dict[Path, str]:
    """Pages whose tables are not what the code says, and what they should be."""
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))}
    return {path: new for path, text in pages.items() if (new := page(text)) != text}


def main() -> int:
    found = stale()
    for path, text in found.items():
        if "--check" in sys.argv:
            print(f"{path.relative_to(ROOT)} is stale; run python tools/docs.py")
        else:
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return int(bool(found) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
