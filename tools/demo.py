"""What `make demo` runs: the README's first recipe on two real models, and proof that others can open the result.

Both were trained by others and come out of packages, without a hub: a language model and a sentence encoder.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "channels-20"


def run(*command: str) -> None:
    """Show the command and run it in the project's folder; SystemExit with its code when it fails."""
    shown = " ".join(command).replace(f"{sys.executable} -m compress", "compress").replace(sys.executable, "python")
    print(f"\n$ {shown}", flush=True)
    if code := subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(code)


def model(tool: str) -> str:
    """The folder that a tool of ours prints."""
    found = subprocess.run([sys.executable, ROOT / "tools" / tool], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(found.returncode)
    return found.stdout.strip().splitlines()[-1]


def main(recipe: str = RECIPE) -> None:
    """Prune both models by `recipe`, open each result with stock transformers in a process of its own, and show what
    the language model writes before and after."""
    models = {"smollm2-135m": model("smollm2.py"), "minilm": model("minilm.py")}
    outputs = {name: str(Path("out") / f"{name}-{Path(recipe).stem}") for name in models}
    for name, dense in models.items():
        run(sys.executable, "-m", "compress", recipe, dense, outputs[name], "--force")
    for name, dense in models.items():
        run(sys.executable, "tools/open_stock.py", dense, outputs[name])
    for out in outputs.values():
        for one in json.loads((ROOT / out / "report.json").read_text()).get("generated", []):
            print(f"\n{one['prompt']} …\n  before: {one['before']!r}\n  after:  {one['after']!r}")
    print("\nReports:")
    for out in outputs.values():
        print(f"  {(ROOT / out / 'report.html').as_uri()}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
