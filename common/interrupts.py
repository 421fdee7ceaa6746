"""Ctrl-C and a polite kill: heard wherever the program is, once, and then kept from what cleans up."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(SystemExit):
    """Ctrl-C, or SIGTERM.

    No KeyboardInterrupt: vLLM 0.32 catches that while it waits for its engine's process, and waits on for ten minutes
    (`zmq_socket_ctx` in vllm/utils/network_utils.py). A SystemExit, because asyncio logs what is neither and goes on.
    """


def _stop(number: int, frame: object) -> None:
    raise Interrupted(128 + signal.SIGINT)


def hear() -> None:
    """From now on both signals raise Interrupted in the main thread."""
    for how in SIGNALS:
        signal.signal(how, _stop)


def ignore() -> None:
    """From now on neither does anything: a second Ctrl-C would leave processes behind, and no report."""
    for how in SIGNALS:
        signal.signal(how, signal.SIG_IGN)
