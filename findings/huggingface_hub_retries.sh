#!/usr/bin/env bash
# huggingface_hub 2.4.0, hf_hub_download without a network: a refused connection is tried six times with pauses of 1, 2, 4,
# 8 and 8 seconds, whatever etag_timeout says. model_info, asked of the same hub with the same timeout, fails at once.
# Output seen (a closed port of this machine as the hub):
#   model_info(timeout=3): 0.3 s, ConnectError
#   hf_hub_download(etag_timeout=3): 23.3 s, LocalEntryNotFoundError
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install --quiet huggingface_hub==2.4.0
cd "$place"
export HF_HOME="$place/home" HF_ENDPOINT=http://127.0.0.1:9 no_proxy=127.0.0.1
unset HF_HUB_OFFLINE
"$place/venv/bin/python" - 2>/dev/null <<'PYTHON'
import time

import huggingface_hub as hub


def seconds(name, ask):
    began = time.monotonic()
    try:
        ask()
        outcome = "no error"
    except Exception as error:
        outcome = type(error).__name__
    taken = time.monotonic() - began
    print(f"{name}: {taken:.1f} s, {outcome}")
    return taken


asked = seconds("model_info(timeout=3)", lambda: hub.model_info("owner/name", timeout=3))
tried = seconds(
    "hf_hub_download(etag_timeout=3)", lambda: hub.hf_hub_download("owner/name", "config.json", etag_timeout=3)
)
raise SystemExit(0 if asked < 3 and tried > 15 else "behaviour has changed")
PYTHON
