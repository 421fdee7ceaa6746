"""Ends the children of a program that was killed: vLLM's engine core outlives it otherwise, and keeps the GPU's memory.

With a GPU the engine has processes of its own. After a SIGKILL of the runner alone, which is what the system does when
memory runs out, they wait for a program that is gone, and the next start finds no memory. So a small process beside the
runner looks every half second who its children are, and kills them when it is gone.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil

EVERY_S = 0.5


@contextmanager
def no_orphans() -> Iterator[None]:
    """During the block: if this process dies, however it dies, its children and theirs are killed within a second."""
    watcher = subprocess.Popen(
        [sys.executable, __file__, str(os.getpid())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,  # a kill of the whole group leaves it alive
    )  # fmt: skip
    try:
        yield
    finally:
        watcher.kill()
        watcher.wait()


def watch(pid: int) -> None:
    """Wait until that process is gone, then kill what it left."""
    family: list[psutil.Process] = []
    try:
        process = psutil.Process(pid)
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            family = [child for child in process.children(recursive=True) if child.pid != os.getpid()]
            time.sleep(EVERY_S)
    except psutil.NoSuchProcess:
        pass
    for child in family:
        with suppress(psutil.Error):  # ended by itself; a pid that belongs to another process now is left alone
            child.kill()


if __name__ == "__main__":
    watch(int(sys.argv[1]))
