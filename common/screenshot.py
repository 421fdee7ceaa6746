"""A picture of a demo's screen, as the README shows one.

    .venv/bin/python -m common.screenshot 0.intro/figures/screen.svg 0.intro/demo.py --replay h100 --only headline

The demo runs in a terminal of 120 columns, with colours, and what stands on its screen at the end becomes an SVG.
"""

import argparse
import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 120


def screen_of(command: list[str]) -> str:
    """What a command writes to a terminal, colours included. Raises CalledProcessError if it fails."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=os.environ | {"COLUMNS": str(COLUMNS)}
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux reports the end of a terminal as an error
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    if process.wait():
        raise subprocess.CalledProcessError(process.returncode, command, written)
    return written.decode()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m common.screenshot", description=__doc__.splitlines()[0])
    parser.add_argument("svg", type=Path)
    parser.add_argument("demo")
    parser.add_argument("options", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    text = screen_of([sys.executable, options.demo, *options.options]).replace("\r\n", "\n")
    # A spinner is erased and drawn again: keep what stands at the end.
    text = re.sub(r"\x1b\[\?25[lh]|\r\x1b\[2K|\x1b\[1A|\x1b\[2K", "", text)
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.from_ansi(text.strip("\n")))
    svg = console.export_svg(title=shlex.join(["python", options.demo, *options.options]))
    # The reader's own monospaced font, rather than one fetched from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    options.svg.write_text(svg)


if __name__ == "__main__":
    main()
