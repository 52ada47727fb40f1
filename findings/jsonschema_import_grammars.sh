#!/usr/bin/env bash
# jsonschema 4.26.0, rfc3987-syntax 1.1.0, nbformat 5.11.1: next to JupyterLab, each `import nbformat` takes a second more
#
# jsonschema imports rfc3987-syntax if it is installed, for a format (`iri`) that notebooks do not have, and that package
# builds 38 Earley parsers when it is imported. jupyter-events, which JupyterLab needs, asks for it through the extra
# `format-nongpl`. So in an environment with JupyterLab, every start of papermill, nbconvert or nbclient pays for grammars
# that nothing uses: for a short papermill job, that is about a quarter of the time.
#
# Seen: `import nbformat` 0.9 s with the package, 0.1 s if it is hidden; the parsers are 0.8 s of that.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q nbformat==5.11.1 'jsonschema[format-nongpl]==4.26.0' rfc3987-syntax==1.1.0 lark==1.3.1
cat >"$work/run.py" <<'PYTHON'
import sys
import time

if sys.argv[1] == "hidden":
    sys.modules["rfc3987_syntax"] = None
started = time.perf_counter()
import nbformat

print(time.perf_counter() - started, int("lark" in sys.modules))
PYTHON
"$work/venv/bin/python" "$work/run.py" hidden >/dev/null # compiles the modules
read -r hidden without < <("$work/venv/bin/python" "$work/run.py" hidden)
read -r seconds with < <("$work/venv/bin/python" "$work/run.py" installed)
echo "import nbformat: $seconds s with rfc3987-syntax, $hidden s if it is hidden; lark imported: $with and $without"
"$work/venv/bin/python" -c "assert $seconds > 3 * $hidden and ($with, $without) == (1, 0)"
