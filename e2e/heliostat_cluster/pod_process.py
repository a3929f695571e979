"""Finds the local process that a pod's container is, to kill or to measure it."""

from pathlib import Path


def process_of_pod(pod: str, command: str) -> int:
    """Give the id of the pod's process with this word on its command line.

    A process belongs to the pod whose name is its HOSTNAME. LookupError where there is none.
    """
    hostname, word = f"HOSTNAME={pod}".encode(), command.encode()
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if word in words and hostname in environment:
            return int(folder.name)
    raise LookupError(f"no process of pod {pod} runs {command}")
