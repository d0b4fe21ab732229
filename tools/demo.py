"""What `make demo` runs: the README's first command on two real models, and proof that others can open the result.

Both were trained by others and come out of packages, without a hub: a language model and a sentence encoder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MINUTES = {"smollm2-135m": "1", "minilm": "0.3"}
"""How long `compress auto` may look for the best recipe."""


HARVEST = "from compress.data.sources.docs import harvest; harvest()"
"""Makes the text that the recipe is calibrated on, which takes one core for a while: the models are made meanwhile."""


def show(*command: str) -> None:
    shown = " ".join(command).replace(f"{sys.executable} -m compress", "compress").replace(sys.executable, "python")
    print(f"\n$ {shown}", flush=True)


def run(*command: str) -> None:
    """Show the command and run it in the project's folder; SystemExit with its code when it fails."""
    show(*command)
    if code := subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(code)


def together(*commands: tuple[str, ...]) -> list[str]:
    """What each of the commands puts out, all of them at once in the project's folder; SystemExit with the code of the
    first that fails."""
    running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for command in commands]
    said = [one.communicate()[0] for one in running]
    for one in running:
        if one.returncode:
            sys.exit(one.returncode)
    return said


def main(recipe: str | None = None) -> None:
    """Prune both models by `compress auto` or a `recipe`, open each result with stock transformers in a process of its
    own, and show what the language model writes before and after."""
    tools = {"smollm2-135m": "tools/smollm2.py", "minilm": "tools/minilm.py"}
    *made, _ = together(*((sys.executable, tool) for tool in tools.values()), (sys.executable, "-c", HARVEST))
    models = {name: said.strip().splitlines()[-1] for name, said in zip(tools, made, strict=True)}
    outputs = {name: str(Path("out") / f"{name}-{Path(recipe or 'auto').stem}") for name in models}
    for name, dense in models.items():
        goal = () if recipe else ("--remove", "20%", "--minutes", MINUTES[name])
        run(sys.executable, "-m", "compress", recipe or "auto", dense, outputs[name], *goal, "--force")
    opening = [(sys.executable, "tools/open_stock.py", dense, outputs[name]) for name, dense in models.items()]
    for command, said in zip(opening, together(*opening), strict=True):
        show(*command)
        print(said, end="")
    for out in outputs.values():
        for one in json.loads((ROOT / out / "report.json").read_text()).get("generated", []):
            print(f"\n{one['prompt']} …\n  before: {one['before']!r}\n  after:  {one['after']!r}")
    print("\nReports:")
    for out in outputs.values():
        print(f"  {(ROOT / out / 'report.html').as_uri()}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
