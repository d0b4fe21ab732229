"""docs/modules.md as it stands there, and the README's lines of Python."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(page):
    return [compile(block, page, "exec") for block in BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))]


@pytest.mark.slow
def test_the_page_of_modules_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("docs/modules.md"):
        exec(block, names)
    said = capsys.readouterr().out
    assert "Linear(in_features=64, out_features=204, bias=True)" in said and "'layers.3.shared': [4, 2]" in said
    assert torch.equal(names["again"](x := torch.randn(3, 64)), names["found"].module.eval()(x))


def test_the_lines_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (block,) = BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert len(block.splitlines()) <= 5
    names: dict = {}
    exec(block, names)
    size = {name: sum(p.numel() for p in names[name].parameters()) for name in ("net", "small")}
    assert size["small"] < 0.85 * size["net"] and names["small"](names["x"]).shape == names["net"](names["x"]).shape
