"""A process that chooses an isolation and carries out scenarios in it: `python -m tests.isolation.driver NAME WORK`.

Entering namespaces changes a process for good, so no test does it in pytest's own. One JSON object a line comes in
on stdin ({"scenario": name, "arguments": {...}}), one goes out on stdout ({"value": ...} or {"error": traceback}).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from builder.errors import BuildError
from builder.events import Event, Message
from builder.isolation.choose import choose
from builder.isolation.removal import remove_tree
from tests.isolation import scenarios


class Recorder:
    def __init__(self) -> None:
        self.messages: list[str] = []

    def tell(self, event: Event) -> None:
        if isinstance(event, Message):
            self.messages.append(event.text)


def main(name: str, work: Path) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever prints must not look like an answer
    recorder = Recorder()
    work.mkdir(exist_ok=True)
    try:
        isolation = choose(name, work, recorder)
    except BuildError as error:
        answers.write(json.dumps({"refused": f"{error.message}\n{error.hint}"}) + "\n")
        return
    answers.write(json.dumps({"chosen": isolation.name, "messages": recorder.messages}) + "\n")
    answers.flush()
    os.environ["LIMPET_TEST_ENVIRONMENT"] = "password-in-the-environment"
    setting = scenarios.Setting(isolation, work)
    root = set(os.listdir("/"))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            value = getattr(scenarios, request["scenario"])(setting, **request["arguments"])
            left = os.listdir(work)
            if isolation.name == "in-place":
                left += set(os.listdir("/")) ^ root  # nothing of the image may lie there, and nothing be lost
            answer = {"value": value, "left": left, "mounts": mounts_below(work)}
        except Exception:
            answer = {"error": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    remove_tree(work)


def mounts_below(work: Path) -> list[str]:
    """The mount points in `work`, which no scenario may leave behind."""
    with open("/proc/self/mountinfo") as lines:
        points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(f"{work}/")]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
