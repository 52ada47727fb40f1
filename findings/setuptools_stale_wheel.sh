#!/usr/bin/env bash
# pip 26.0 with setuptools 84.2.1: `pip wheel .` builds in the source folder, below build/lib, and packs all that lies
# there. A module that was renamed or removed since the last `pip wheel .` is therefore in the next wheel as well, though
# it is neither in the source nor in a package that setup.py lists.
# Output seen:
#   first wheel:  pack/__init__.py pack/old.py
#   second wheel: pack/__init__.py pack/new.py pack/old.py
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pip==26.0 setuptools==84.2.1
mkdir -p "$place/source/pack"
cd "$place/source"
cat > pyproject.toml <<'TOML'
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
TOML
cat > setup.py <<'PYTHON'
from setuptools import setup

setup(name="pack", version="1", packages=["pack"])
PYTHON
touch pack/__init__.py pack/old.py

modules() { # of a wheel of the source folder
    "$place/venv/bin/pip" wheel --quiet --no-deps --no-build-isolation --wheel-dir "$1" .
    python3 -m zipfile --list "$1"/pack-1-*.whl | grep -o '^pack/[a-z_]*\.py' | xargs
}

first=$(modules "$place/first")
echo "first wheel:  $first"
mv pack/old.py pack/new.py
second=$(modules "$place/second")
echo "second wheel: $second"
[ "$first" = "pack/__init__.py pack/old.py" ]
[ "$second" = "pack/__init__.py pack/new.py pack/old.py" ] || { echo "behaviour has changed"; exit 1; }
