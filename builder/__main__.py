"""`python -m builder` is `limpet`: the process that carries out one command and ends."""

import gc
import os
import signal
import sys
from typing import NoReturn


def run() -> NoReturn:
    """builder.cli.main.main() as a whole process, which ends with its exit code.

    A build that finds everything in the cache is mostly start and end of a Python process: its modules are loaded
    without looking for garbage after every few hundred objects (they leave none), and at the end, when everything is
    closed, the interpreter is not taken apart.
    """
    gc.disable()  # until main() has loaded its command
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until main() handles it: no traceback of half a start
    from builder.cli.main import main  # after the line above: it loads much

    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads it any more: main() has said what there is to say
    os._exit(code)


if __name__ == "__main__":
    run()
