"""The parts of tools/bench/coverage.py: kinds of models, processes that examine them, pages of what was found."""
