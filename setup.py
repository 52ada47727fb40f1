"""Package metadata lives in settings.ini; this file hands it to setuptools."""

import shlex
from configparser import ConfigParser

from setuptools import find_packages, setup

parser = ConfigParser(delimiters=["="])
parser.read("settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]

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
    install_requires=shlex.split(settings["requirements"]),
    extras_require={
        name: shlex.split(settings[f"{name}_requirements"])
        for name in ("dev", "s3", "int8", "mlflow", "wandb", "trackio")
    },
    entry_points={
        "nbdev": [f"{settings['lib_path']}={settings['lib_path']}._modidx:d"],
        "papermill.engine": [f"{settings['lib_path']}={settings['lib_path']}.engine:JobEngine"],
    },
)
