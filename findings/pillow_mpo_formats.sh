#!/usr/bin/env bash
# Pillow 12.0.0 and 13.0.0: the format of an opened picture may be "MPO" (many phones write it), and such files are read
# by the JPEG plugin. But "MPO" in the `formats` of Image.open is no format to skip: it raises KeyError for EVERY file,
# a plain PNG too, unless an earlier name in the list has matched. A list of allowed formats made from Image.format
# values therefore works until the first file that matches none of the names before "MPO".
# Seen: JPEG in front: format MPO | PNG with formats ['MPO', 'PNG']: KeyError 'MPO' | ['PNG', 'MPO']: PNG
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet pillow==12.0.0
"$place/venv/bin/python" - <<'PYTHON'
import io

from PIL import Image


def saved(format, **options):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, format, **options)
    file.seek(0)
    return file


def opened(file, formats):
    try:
        return Image.open(file, formats=formats).format
    except Exception as error:
        return repr(error)


seen = {
    "two-picture MPO, formats ['JPEG']": opened(saved("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]), ["JPEG"]),
    "PNG, formats ['MPO', 'PNG']": opened(saved("PNG"), ["MPO", "PNG"]),
    "PNG, formats ['PNG', 'MPO']": opened(saved("PNG"), ["PNG", "MPO"]),
}
for what, said in seen.items():
    print(f"{what}: {said}")
assert list(seen.values()) == ["MPO", "KeyError('MPO')", "PNG"], "another behaviour"
PYTHON
