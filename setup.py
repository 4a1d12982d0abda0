"""A wheel also has the experiments' configs and the SAEs, which lie at the top of a checkout (see emlab/shipped.py)."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithShipped(build_py):
    """Copies them into the package that is built; an editable install reads the checkout's."""

    def run(self):
        super().run()
        if not self.editable_mode:
            for name in ("experiments", "sae_checkpoints"):
                target = Path(self.build_lib, "emlab", "shipped_files", name)
                shutil.rmtree(target, ignore_errors=True)  # of an earlier build
                shutil.copytree(name, target)


setup(cmdclass={"build_py": BuildWithShipped})
