#!/usr/bin/env bash
# rapidocr 3.10.0, onnxruntime 1.32.0, Pillow 13.0.0: how a line is read depends on the other lines in its batch
#
# Lines are sorted by width and recognised six at a time by default (`Rec.rec_batch_num`), and each is padded to the width of the
# longest of its batch. The network is not indifferent to the padding: a long line in the same batch changes the confidence
# of short ones, and even their letters. With `rec_batch_num` 1, each line is read as if it were alone.
#
# Seen: alone www (1.00), next to a long line WWW (0.80); with rec_batch_num 1, www (1.00) both times.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q rapidocr==3.10.0 onnxruntime==1.32.0 pillow==13.0.0
cat >"$work/run.py" <<'PYTHON'
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr import RapidOCR
from rapidocr.ch_ppocr_rec import TextRecInput

LONG = "directed by somebody with a very long name and a friend of hers " * 2
font = ImageFont.load_default(28)


def line(text):
    picture = Image.new("RGB", (int(font.getlength(text)) + 8, 40), "white")
    ImageDraw.Draw(picture).text((4, 4), text, font=font, fill="black")
    return np.array(picture)[..., ::-1]


def first(engine, *texts):
    found = engine.text_rec(TextRecInput(img=[line(text) for text in texts]))
    return found.txts[0], found.scores[0]


seen = {}
for number in (6, 1):
    engine = RapidOCR(params={"Rec.rec_batch_num": number, "Global.log_level": "error"})
    engine(line("www"), use_det=False, use_cls=False)  # loads the network
    seen[number] = first(engine, "www"), first(engine, "www", LONG)
    (alone, sure), (beside, less) = seen[number]
    print(f"rec_batch_num {number}: alone {alone} ({sure:.2f}), next to a long line {beside} ({less:.2f})")
(alone, sure), (beside, less) = seen[6]
assert alone == "www" and beside != alone and less < sure - 0.1, "the long line changes nothing any more"
texts, scores = zip(*seen[1], strict=True)
assert texts == (alone, alone) and np.allclose(scores, sure), "lines depend on each other in batches of one too"
PYTHON
"$work/venv/bin/python" "$work/run.py"
