#!/usr/bin/env bash
# pandas 3.0.5, pyarrow 25.0.0: `Series.isin` on strings is much slower with the Arrow-backed default type than on objects
#
# Since pandas 3, strings are stored by Arrow, and most operations on them are faster than on Python objects. `isin` makes
# a pyarrow scalar of each value that it is given, and turns it back into a Python string. The cost grows with the number
# of values, not with the length of the column, so a short column against many known names is the worst case.
#
# Seen:
PLACEHOLDER
