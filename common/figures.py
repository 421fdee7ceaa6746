"""Pictures of recorded rows: one chart for each hardware, drawn again only when rows or drawing have changed."""

import hashlib
import io
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from common.columns import COLUMNS

MARK = "course-source"  # the PNG text field that says what a picture was drawn from
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe-Ito: safe for colour-blind eyes


@dataclass(frozen=True)
class Figure:
    """A line chart (`kind="line"`, one line for each value of `by`), a bar chart (stacked where `y` is a list), or the
    timeline of a trace, from the rows of `timeline_table`."""

    name: str
    experiment: str
    title: str
    x: str = ""
    y: str | tuple[str, ...] = ""
    by: str | None = None
    kind: str = "line"
    log_x: bool = False
    log_y: bool = False

    def file(self, folder: Path, slug: str) -> Path:
        return folder / "figures" / f"{self.name}-{slug}.png"

    def source(self, record: dict) -> str:
        """A hash of all that the picture shows."""
        shown = [record["rows"], record["hardware"]["name"], record["model"]["weights"], record["date"]]
        drawn = json.dumps([asdict(self), *shown], sort_keys=True)
        code = [Path(__file__).read_bytes()]
        if self.kind == "timeline":
            code += [(Path(__file__).parent / name).read_bytes() for name in ("timeline.py", "timeline_table.py")]
        return hashlib.sha256(drawn.encode() + b"".join(code)).hexdigest()[:16]

    def is_current(self, folder: Path, slug: str, record: dict) -> bool:
        """Whether the file was drawn from this record by this code."""
        from PIL import Image

        file = self.file(folder, slug)
        if not file.exists():
            return False
        try:
            with Image.open(file) as picture:
                return picture.text.get(MARK) == self.source(record)
        except OSError:  # cut short, or no picture at all
            return False

    def draw(self, folder: Path, slug: str, record: dict) -> None:
        """Write the picture for one hardware."""
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        hardware = record["hardware"]["name"] + (", random weights" if record["model"]["weights"] == "random" else "")
        origin = f"{hardware}, {record['date'][:10]}"
        drawn = (self._timeline if self.kind == "timeline" else self._chart)(record, origin)
        file = self.file(folder, slug)
        file.parent.mkdir(exist_ok=True)
        mark = PngInfo()
        mark.add_text(MARK, self.source(record))
        # A palette of 256 colours makes the file a third as large.
        Image.open(drawn).convert("RGB").quantize(256).save(file, pnginfo=mark, optimize=True)

    def _timeline(self, record: dict, origin: str) -> io.BytesIO:
        from common import timeline, timeline_table

        trace = timeline_table.trace_of(record["rows"], record["settings"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "timeline.png"
            timeline.draw(trace, file, f"{self.title}: {origin}")
            return io.BytesIO(file.read_bytes())

    def _chart(self, record: dict, origin: str) -> io.BytesIO:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot

        figure, axes = pyplot.subplots(figsize=(7, 4), dpi=110, layout="constrained")
        (self._lines if self.kind == "line" else self._bars)(axes, record["rows"])
        axes.set_title(self.title, loc="left", fontweight="bold")
        figure.text(0.995, 0.005, origin, ha="right", fontsize=7, color="#555555")
        axes.spines[["top", "right"]].set_visible(False)
        figure.get_layout_engine().set(rect=(0, 0.03, 1, 0.97))
        drawn = io.BytesIO()
        figure.savefig(drawn)
        pyplot.close(figure)
        return drawn

    def _lines(self, axes, rows: list[dict]) -> None:
        groups = list(dict.fromkeys(row[self.by] for row in rows)) if self.by else [None]
        if len(groups) > len(COLOURS):
            raise ValueError(f"{self.name} has {len(groups)} lines, and there are {len(COLOURS)} colours")
        for colour, group in zip(COLOURS, groups, strict=False):
            points = [
                (row[self.x], row[self.y])
                for row in rows
                if (self.by is None or row[self.by] == group) and row.get(self.y) is not None
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", color=colour, label=group)
        if self.log_x:
            axes.set_xscale("log", base=2)
            ticks = sorted({row[self.x] for row in rows})
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
        if self.log_y:
            axes.set_yscale("log")
            _label_plainly(axes.yaxis)
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlabel(_label(self.x))
        axes.set_ylabel(_label(self.y))
        axes.grid(color="#dddddd")
        if self.by:
            axes.legend(frameon=False)

    def _bars(self, axes, rows: list[dict]) -> None:
        rows = [row for row in rows if any(row.get(column) is not None for column in self._columns())]
        names = [str(row[self.x]) for row in rows]
        left = [0.0] * len(rows)
        for colour, column in zip(COLOURS, self._columns(), strict=False):
            widths = [row.get(column) or 0.0 for row in rows]
            bars = axes.barh(names, widths, left=left, color=colour, label=column)
            left = [a + b for a, b in zip(left, widths, strict=True)]
            if len(self._columns()) == 1:
                axes.bar_label(
                    bars, labels=[f"{width:,.3g}" if width < 100 else f"{width:,.0f}" for width in widths], padding=3
                )
        axes.invert_yaxis()
        if self.log_x:
            axes.set_xscale("log")
            _label_plainly(axes.xaxis)
        axes.margins(x=0.12)
        axes.set_xlabel(_label(self._columns()[0]) if len(self._columns()) == 1 else "seconds")
        if len(self._columns()) > 1:
            axes.legend(frameon=False)

    def _columns(self) -> tuple[str, ...]:
        return (self.y,) if isinstance(self.y, str) else self.y


def _label_plainly(axis) -> None:
    """Label a logarithmic axis 1, 2, 5, 10, 20 … in whole figures, at every length that it may have."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axis.set_minor_formatter(NullFormatter())


def _label(column: str) -> str:
    unit, meaning = COLUMNS[column]
    short = meaning.split(":")[0].split(";")[0].split(",")[0]
    if len(short) > 40:
        short = column
    return f"{short} [{unit}]" if unit else short
