"""The packages of emojax; everything else is in pyproject.toml.

The folder configs/ is at the top of the repository and becomes the package emojax.configs.
"""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class Build(build_py):
    """A build without emojax/configs.py, which finds the folder in a checkout."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Returns (package, module, file) of a package's modules."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if module[:2] != ("emojax", "configs")]


setup(
    packages=[*find_packages(include=["emojax", "emojax.*"]), "emojax.configs"],
    package_dir={"emojax.configs": "configs"},
    cmdclass={"build_py": Build},
)
