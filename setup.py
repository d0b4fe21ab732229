"""What pyproject.toml cannot say: the folder recipes/ travels inside the package, as compress/recipes."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithRecipes(build_py):
    """An editable installation finds the recipes where they are."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            built = Path(self.build_lib) / "compress" / "recipes"
            shutil.rmtree(built, ignore_errors=True)
            shutil.copytree("recipes", built)


setup(cmdclass={"build_py": WithRecipes})
