"""`python -m compress` is the command `compress`."""

import os
import sys

if sys.path[:1] == [os.getcwd()]:  # put there by -m: inside of a checkpoint its torch.py would be taken for torch
    del sys.path[0]

from compress.cli import main

if __name__ == "__main__":
    main()
