#!/usr/bin/env bash
# pandas 3.1.1, pyarrow 26.0.1: `Series.isin` is many times slower on the default type of strings than on objects
#
# Since pandas 3, strings are stored by Arrow, which makes most operations on them faster. `isin` turns each of the values
# that it looks for into a pyarrow scalar and back, one by one in Python, before Arrow compares them. So the time grows
# with the number of values even if the column has ten rows, and passing the values as a Series of the same type does not
# help. Arrow's own `is_in` on the same data has no such cost.
#
# Seen with 100,000 values, in milliseconds: column of 10 rows 326, as objects 7; column of 100,000 rows 333, as objects
# 15; values as a Series 422; `pyarrow.compute.is_in` 13.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pandas==3.1.1 pyarrow==26.0.1
cat >"$work/run.py" <<'PYTHON'
import time

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def milliseconds(job):
    "Return the time of the fastest of three calls."
    times = []
    for _ in range(3):
        started = time.perf_counter()
        job()
        times.append(1000 * (time.perf_counter() - started))
    return min(times)


names = [f"poster_{number}" for number in range(100_000)]
values = pd.Series(names)
for rows in (10, 100_000):
    column = pd.Series(names[:rows])
    objects = column.astype(object)
    assert isinstance(column.dtype, pd.StringDtype) and column.dtype.storage == "pyarrow"
    assert column.isin(names).all() and objects.isin(names).all()
    default, plain = milliseconds(lambda: column.isin(names)), milliseconds(lambda: objects.isin(names))
    print(f"{rows:,} rows, {len(names):,} values: {default:.0f} ms, as objects {plain:.0f} ms")
    assert default > 5 * plain
series = milliseconds(lambda: column.isin(values))
arrow = milliseconds(lambda: pc.is_in(pa.array(column), value_set=pa.array(values)))
print(f"values as a Series: {series:.0f} ms; pyarrow.compute.is_in: {arrow:.0f} ms")
assert series > 5 * arrow
PYTHON
"$work/venv/bin/python" "$work/run.py"
