"""How long `compress --help` takes: the median of some runs.

python tools/bench/help.py [runs]
"""

from __future__ import annotations

import sys

from apart import compress, median, run, verdict


def main(runs: int) -> None:
    compress("--help")  # writes the byte code
    seconds = [compress("--help").seconds for _ in range(runs)]
    bare = median(run([sys.executable, "-c", "pass"]).seconds for _ in range(runs))
    found = median(seconds)
    print(
        f"compress --help: {found:.2f} s, the fastest of {runs} {min(seconds):.2f} s, "
        f"an empty Python {bare:.2f} s ({verdict(found, 0.3)})"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
