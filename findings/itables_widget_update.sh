#!/usr/bin/env bash
# itables 2.9.1: `ITable.update` with new data resets the options that are not given again
#
# `update(df)` changes the data, and one expects it to leave the rest. Options with a default in `itables.options`, such as
# `order` and `layout`, go back to that default: a table that was sorted and had buttons loses both. Options without a
# default, such as `scrollX`, are kept. All options have to be given again with the data.
#
# Seen: order [[0, 'desc']] -> []; layout with buttons and search -> all places None; scrollX True -> True.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q 'itables[widget]==2.9.1' pandas==2.3.3
cat >"$work/run.py" <<'PYTHON'
import pandas as pd
from itables.widget import ITable

table = ITable(
    pd.DataFrame({"a": range(3)}),
    order=[[0, "desc"]],
    layout={"topStart": {"buttons": ["csvHtml5"]}, "topEnd": "search"},
    scrollX=True,
)
before = {name: table._dt_args.get(name) for name in ("order", "layout", "scrollX")}
table.update(pd.DataFrame({"a": range(4)}))
after = {name: table._dt_args.get(name) for name in before}
for name in before:
    print(f"{name}: {before[name]} -> {after[name]}")
raise SystemExit(not (after["scrollX"] and not after["order"] and after["layout"] != before["layout"]))
PYTHON
"$work/venv/bin/python" "$work/run.py"
