"""Replaces itself by another program that the kernel (Linux) ends together with its parent.

Run as a script: `leash.py PARENT_PID PROGRAM ARGUMENT...`. A function between fork and exec would
do the same, but is not safe in a process with threads, and gRPC has many.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask the kernel for the signal, then become the program; exit 1 if the parent is gone."""
    parent, program, *arguments = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(parent):
        sys.exit(1)
    try:
        os.execv(program, [program, *arguments])  # noqa: S606 - the caller names the program
    except OSError as error:
        sys.exit(f"{program}: {error.strerror}")


if __name__ == "__main__":
    main()
