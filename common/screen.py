"""What a demo shows: a card, questions, predictions, tables; readable from the back of a room.

Everything else that is printed while a demo runs (vLLM's log, warnings of C++ code) goes to a file.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table


def number(value: object) -> str:
    """A value as tables show it: three significant digits, thousands separated, a dash for what is missing."""
    if value is None or value != value:  # NaN is the one value unequal to itself
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if value == 0 or abs(value) >= 100:
            return f"{value:,.0f}"
        return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"
    return str(value)


def shorten(text: str, width: int) -> str:
    """A text that takes at most `width` columns of a terminal, in which a Chinese character takes two."""
    while cell_len(text) > width:
        text = text[: max(1, len(text) - 2)].rstrip("…") + "…"
    return text


class Screen:
    """The terminal. `present` clears it for each experiment and waits for a key at each step."""

    def __init__(self, present: bool = False, file=None):
        self.present = present
        shown = file or sys.stdout
        width = os.get_terminal_size(shown.fileno()).columns if shown.isatty() else 0
        self.console = Console(file=shown, highlight=False, width=width or 120)  # some terminals say 0

    def say(self, text: str, style: str = "") -> None:
        self.console.print(text, style=style, markup=False)

    def aside(self, title: str, text: str) -> None:
        """A titled text, indented."""
        self.console.print(Padding(f"[bold]{escape(title)}[/bold]\n{escape(text.strip())}", (0, 0, 0, 2)))

    def stream(self, title: str, pieces: Iterable[str]) -> None:
        """A titled text, each piece as soon as it is there."""
        self.console.print(f"  [bold]{escape(title)}[/bold]")
        self.console.print("  ", end="")
        for piece in pieces:
            self.console.print(piece, end="", soft_wrap=True, markup=False)
        self.console.print()

    def card(self, title: str, lines: list[tuple[str, str]]) -> None:
        grid = Table.grid(padding=(0, 2))
        for name, value in lines:
            grid.add_row(f"[bold]{name}[/bold]", escape(value))
        self.console.print(Panel(grid, title=f"[bold]{escape(title)}[/bold]", title_align="left", expand=False))
        self.pause()

    def question(self, name: str, text: str, place: str) -> None:
        if self.present:
            self.console.clear()
        self.console.print()
        self.console.rule(f"[bold]{escape(name)}[/bold]  {place}", align="left")
        self.say(text, style="bold cyan")
        self.pause()

    def prediction(self, name: str, value: float, unit: str, because: str) -> None:
        self.console.print(f"  [yellow]predicted[/yellow] {escape(name)}: {number(value)} {unit}  ({escape(because)})")
        self.pause()

    def comparison(self, name: str, predicted: float, measured: float, unit: str) -> None:
        ratio = f", {measured / predicted:.2f} of the prediction" if predicted else ""
        self.console.print(
            f"  [green]measured[/green]  {escape(name)}: {number(measured)} {unit} "
            f"(predicted {number(predicted)}{ratio})"
        )

    def table(self, rows: list[dict], title: str = "", compact: bool = False) -> None:
        """Rows as a table; `compact` gives each row one line and cuts what is longer.

        The last columns are left out, and named, where the screen is too narrow for the numbers.
        """
        style = {"title_justify": "left", "title_style": "italic", "pad_edge": False, "show_edge": False}
        table = Table(box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, title=escape(title) or None, **style)
        columns = list(rows[0]) if rows else []
        cells = [[number(row[column]) for column in columns] for row in rows]
        if compact:
            cells = [[shorten(cell, 36) for cell in row] for row in cells]
        text = [any(isinstance(row[column], str) for row in rows) for column in columns]
        widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
        left_out: list[str] = []
        while sum(fits := fitted(widths, text, room := self.console.width - 2 * (len(columns) - 1))) > room:
            if len(columns) <= 2:
                break
            left_out.insert(0, columns.pop())
            widths.pop()
            text.pop()
        for column, width, is_text in zip(columns, fits, text, strict=True):
            how = {"overflow": "ellipsis" if compact else "fold", "no_wrap": compact or not is_text}
            table.add_column(column, justify="left" if is_text else "right", width=width, **how)
        for row in cells:
            table.add_row(*map(escape, row[: len(columns)]))
        self.console.print(table)
        if left_out:
            self.console.print(f"[dim]not shown on so narrow a screen: {', '.join(left_out)}[/dim]")
        self.pause()

    def problem(self, message: str, meaning: str, fix: str) -> None:
        self.console.print(f"[bold red]error[/bold red]  {escape(message)}")
        if meaning:
            self.console.print(f"  meaning  {escape(meaning)}")
        self.console.print(f"  [bold]fix[/bold]      {escape(fix)}")

    @contextmanager
    def status(self, text: str) -> Iterator["Progress"]:
        """A last line that says what is being done, gone when the block ends."""
        progress = Progress(self.console, text)
        progress.start()
        try:
            yield progress
        finally:
            progress.stop()

    def pause(self) -> None:
        """Wait for a key when presenting to a room; q or Ctrl-C ends the demo."""
        if not (self.present and sys.stdin.isatty()):
            return
        import termios
        import tty

        self.console.print("[dim]any key[/dim]", end="")
        keyboard = sys.stdin.fileno()
        before = termios.tcgetattr(keyboard)
        try:
            tty.setcbreak(keyboard)
            key = os.read(keyboard, 8)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
        self.console.print("\r       \r", end="")
        if key in (b"q", b"\x03"):
            raise KeyboardInterrupt


def fitted(widths: list[int], text: list[bool], room: int) -> list[int]:
    """Widths of a table's columns that add up to `room` at most, if text can give way for that; numbers never do.

    Sentences give way first, the widest of them, down to 20; then names, down to 8.
    """
    fits = list(widths)
    sentences = [is_text and width > 30 for width, is_text in zip(widths, text, strict=True)]
    for may_shrink, least in ((sentences, 20), (text, 8)):
        while sum(fits) > room:
            widest = max((i for i in range(len(fits)) if may_shrink[i]), key=fits.__getitem__, default=None)
            if widest is None or fits[widest] <= least:
                break
            fits[widest] -= 1
    return fits


class Progress:
    """A spinner with a text; where there is no terminal, a plain line for each text and the seconds until then."""

    def __init__(self, console: Console, text: str):
        self.console, self.spinner, self.began = console, Spinner("dots", escape(text)), time.monotonic()
        # Redirecting would bring onto the screen what `output_to` sends to the log.
        self.live = Live(self.spinner, console=console, transient=True, redirect_stdout=False, redirect_stderr=False)

    def start(self) -> None:
        if self.console.is_terminal:
            self.live.start()

    def stop(self) -> None:
        if self.console.is_terminal:
            self.live.stop()

    def update(self, text: str) -> None:
        if self.console.is_terminal:
            self.spinner.update(text=escape(text))
        else:
            self.console.print(f"{time.monotonic() - self.began:6.0f} s … {escape(text)}", style="dim")


@contextmanager
def output_to(log: Path) -> Iterator:
    """Send what this process and its children print to `log`; yields a file that still reaches the terminal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    terminal, errors = os.dup(1), os.dup(2)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        shown = os.fdopen(os.dup(terminal), "w", buffering=1)
        try:
            yield shown
        finally:
            with suppress(BrokenPipeError):  # nobody reads any more, as after `… | head`; rich has ended the demo
                shown.close()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(terminal, 1)
        os.dup2(errors, 2)
        os.close(terminal)
        os.close(errors)
