#!/usr/bin/env bash
# pandas 3.1.1, read_csv with usecols: a row with more fields than the header is cut off without a word, though the same
# row is a ParserError without usecols. An unquoted comma in a path, "Paris, Texas.png", becomes the path "Paris".
# Output seen:
#   without usecols: ParserError: Error tokenizing data. C error: Expected 2 fields in line 3, saw 3
#   with usecols=['path']: ['a.png', 'Paris']
#   with usecols=['path'], engine='python': ['a.png', 'Paris']
#   with usecols=['path'], on_bad_lines='error': ['a.png', 'Paris']
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pandas==3.1.1
cd "$place"
printf 'path,year\na.png,1984\nParis, Texas.png,1984\n' > list.csv
"$place/venv/bin/python" - <<'PYTHON'
import pandas as pd

try:
    print("without usecols:", pd.read_csv("list.csv")["path"].tolist())
    raise SystemExit("read_csv no longer refuses the row")
except pd.errors.ParserError as error:
    print(f"without usecols: ParserError: {str(error).strip()}")
for options in ({}, {"engine": "python"}, {"on_bad_lines": "error"}):
    said = "".join(f", {name}={value!r}" for name, value in options.items())
    found = pd.read_csv("list.csv", usecols=["path"], **options)["path"].tolist()
    print(f"with usecols=['path']{said}: {found}")
    assert found == ["a.png", "Paris"], "behaviour has changed"
PYTHON
