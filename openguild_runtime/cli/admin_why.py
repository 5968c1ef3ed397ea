"""`openguild-server admin why ID`: prints what the servers of this host have recorded about a request."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from openguild_proto.diagnosis.printable import printable
from openguild_proto.diagnosis.why import Remembered, explain, is_known, not_found
from openguild_runtime.server.failures import CommandFailed


def show_why(answers: list[dict[str, Any]], arguments: dict[str, Any]) -> int:
    """Print the records of a request and return 0, or 1 if there are none. Raises CommandFailed if no server answered."""
    told = [msgspec.convert(answer, Remembered) for answer in answers if "error" not in answer]
    if not told:
        raise CommandFailed(f"admin why: {answers[0]['error']}")
    request_id = arguments["request_id"]
    if arguments["json"]:
        text = json.dumps([msgspec.to_builtins(each) for each in told], indent=2, ensure_ascii=False)
        sys.stdout.write(printable(text, kept="\n") + "\n")
    elif is_known(told):
        sys.stdout.write("\n".join(explain(request_id, told)) + "\n")
    else:
        sys.stderr.write(not_found(request_id, told) + "\n")
    return 0 if is_known(told) else 1
