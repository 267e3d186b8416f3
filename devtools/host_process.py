"""Runs ComfyUI's main program, and ends it when the program that started it is gone.

Started with the main program's path and arguments; standard input is a pipe that the starting
program holds open. However that one ends, the pipe closes, and so no server stays behind.
"""

import os
import runpy
import sys
import threading


def end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    sys.argv = sys.argv[1:]
    sys.path[0] = os.path.dirname(os.path.abspath(sys.argv[0]))
    runpy.run_path(sys.argv[0], run_name="__main__")
