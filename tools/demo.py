"""What `make demo` runs: one recipe on two real models, before and after, and proof that others can open the result.

The models come without a hub: a small Llama that is trained here once, and a sentence encoder out of a package.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPE = "recipes/flap-uniform-20.yaml"


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
    """Prune both models by `recipe`, then open each result with stock transformers in a process of its own."""
    models = {"llama-docs": model("train_llama.py"), "minilm": model("minilm.py")}
    outputs = {name: str(Path("out") / f"{name}-{Path(recipe).stem}") for name in models}
    for name, dense in models.items():
        run(sys.executable, "-m", "compress", recipe, dense, outputs[name], "--force")
    for name, dense in models.items():
        run(sys.executable, "tools/open_stock.py", dense, outputs[name])
    print("\nReports:")
    for out in outputs.values():
        print(f"  {(ROOT / out / 'report.html').as_uri()}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
