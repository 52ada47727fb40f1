"""Package metadata lives in settings.ini; this file hands it to setuptools."""

import shlex
import shutil
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

parser = ConfigParser(delimiters=["="])
parser.read("settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


class BuildWithProject(build_py):
    "Add the job notebooks and params files, from which `python -m postergenre new` makes a project."

    def run(self):
        built = Path(self.build_lib, settings["lib_path"])
        if self.editable_mode or built.resolve() == Path(settings["lib_path"]).resolve():  # read from the repository
            super().run()
            return
        shutil.rmtree(built, ignore_errors=True)  # what an earlier build left there would be in the wheel
        super().run()
        for name in settings["project_files"].split():
            target = built / "project" / name
            self.mkpath(str(target.parent))
            self.copy_file(name, str(target))


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    author=settings["author"],
    author_email=settings["author_email"],
    url=settings["git_url"],
    license="Apache-2.0",
    python_requires=f">={settings['min_python']}",
    packages=find_packages(include=[settings["lib_path"], f"{settings['lib_path']}.*"]),
    package_data={settings["lib_path"]: ["templates/*"]},
    cmdclass={"build_py": BuildWithProject},
    install_requires=shlex.split(settings["requirements"]),
    extras_require={
        name: shlex.split(settings[f"{name}_requirements"])
        for name in ("dev", "book", "s3", "int8", "text", "mlflow", "wandb", "trackio", "workflow", "sweep")
    },
    entry_points={
        "nbdev": [f"{settings['lib_path']}={settings['lib_path']}._modidx:d"],
        "papermill.engine": [f"{settings['lib_path']}={settings['lib_path']}.engine:JobEngine"],
    },
)
