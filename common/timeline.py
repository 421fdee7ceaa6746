"""Pictures of a trace: a PNG to look at, and a file for Perfetto to zoom in."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from common.figures import COLOURS
from common.perfetto import chrome
from common.problems import Problem, explain
from common.segments import ROWS, Segment, ends, last_s, rows, segments, split
from common.steps import Trace
from common.trace_reader import read

__all__ = ["chrome", "draw"]

BLUE, VERMILION, GREEN, PINK, ORANGE, _ = COLOURS
KINDS = {"waiting": "#c8c8c8", "prefill": ORANGE, "recompute": VERMILION, "decode": BLUE}
NAMED = 24  # rows that are labelled with the request's id
TELL_APART = 150  # steps whose bounds are drawn


def draw_beside(file: Path, title: str = "") -> tuple[Path, Path]:
    """Read a trace, and write its PNG and its file for Perfetto beside it: (PNG, JSON)."""
    found = read(file)
    picture, zoomable = file.with_suffix(".png"), file.with_suffix(".json")
    draw(found, picture, title)
    chrome(found, zoomable)
    return picture, zoomable


def draw(trace: Trace, file: Path | str | BinaryIO, title: str = "") -> None:
    """Write a PNG: the requests, the tokens of each step, and the KV cache, over time.

    `title` should say model and hardware. A file of that name is replaced. Raises Problem for a trace without
    steps, or if `file` can't be written.
    """
    found = segments(trace)
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    from PIL import Image

    row_of = rows(trace, found)
    heights = (min(6.0, max(1.6, 0.24 * (max(row_of.values()) + 1))), 1.1, 1.1)
    figure, (requests, tokens, blocks) = pyplot.subplots(
        3, figsize=(9, sum(heights) + 1.2), height_ratios=heights, dpi=110, sharex=True, layout="constrained"
    )
    begin = min(segment.began_s for segment in found)
    unit, scale = ("s", 1.0) if last_s(trace) - begin > 5 else ("ms", 1e3)

    def clock(seconds: float) -> float:
        return (seconds - begin) * scale

    bounds = [(clock(step.began_s), clock(end_s)) for step, end_s in zip(trace.steps, ends(trace), strict=True)]
    _draw_requests(requests, trace, found, row_of, clock)
    _draw_tokens(tokens, trace, bounds)
    _draw_blocks(blocks, trace, bounds)
    if len(bounds) <= TELL_APART:
        for axes in (requests, tokens):
            axes.vlines([left for left, _ in bounds], 0, 1, "white", lw=0.6, transform=axes.get_xaxis_transform())
    blocks.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    for axes in (tokens, blocks):
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    blocks.set_xlabel(f"time [{unit}]", fontsize=8)
    blocks.set_xlim(0, clock(last_s(trace)))
    for axes in (requests, tokens, blocks):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=10)
    figure.align_ylabels()
    drawn = io.BytesIO()
    figure.savefig(drawn)
    pyplot.close(figure)
    try:
        if isinstance(file, (str, Path)):
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        # A palette makes the file a third as large.
        Image.open(drawn).convert("RGB").quantize(128).save(file, "PNG", optimize=True)
    except OSError as error:
        meaning, fix = explain(error)
        raise Problem(f"{file} can't be written: {error.strerror}.", fix, meaning) from None


def _boxes(axes, boxes: list[tuple[float, float, float, float]], colour: str, **style: object) -> None:
    """Many boxes of one colour at once, each (left, right, low, high)."""
    from matplotlib.collections import PolyCollection

    corners = [[(left, low), (left, high), (right, high), (right, low)] for left, right, low, high in boxes]
    axes.add_collection(PolyCollection(corners, facecolor=colour, **style))


def _draw_requests(
    axes, trace: Trace, found: list[Segment], row_of: dict[str, int], clock: Callable[[float], float]
) -> None:
    count = max(row_of.values()) + 1
    for kind, colour in KINDS.items():
        half = 0.1 if kind == "waiting" else 0.38 if count <= ROWS else 0.5  # thin rows leave no room between them
        boxes = [
            (
                clock(segment.began_s),
                clock(segment.end_s),
                row_of[segment.request] - half,
                row_of[segment.request] + half,
            )
            for segment in found
            if segment.kind == kind
        ]
        if boxes:
            over_the_bounds = 2.5 if kind == "waiting" else 1  # a wait is not made of steps
            _boxes(axes, boxes, colour, label=kind, zorder=over_the_bounds)
    preempted = [(step.began_s, name) for step in trace.steps for name in step.preempted]
    hits = [(step.began_s, name) for step in trace.steps for name, hit in step.num_cached_tokens.items() if hit]
    final_s = last_s(trace)
    ended = {name: request for name, request in trace.requests.items() if request.end_s and request.end_s <= final_s}
    aborted = [(request.end_s, name) for name, request in ended.items() if request.finish_reason == "abort"]
    for name, points, marker, colour in (
        ("prefix-cache hit", hits, ">", GREEN),
        ("preempted", preempted, "X", "black"),
        ("aborted", aborted, "s", PINK),
    ):
        points = [(clock(time_s), row_of[request]) for time_s, request in points if request in row_of]
        if points:
            size = max(8, 45 - count / 2)
            axes.scatter(*zip(*points, strict=True), s=size, marker=marker, color=colour, lw=0, label=name, zorder=3)
    axes.set_ylim(count - 0.4, -0.6)
    if len(row_of) <= NAMED:
        axes.set_yticks(list(row_of.values()), [_short(name) for name in row_of])
    else:
        axes.set_yticks([])
    shared = ", rows used again" if len(row_of) > ROWS else ""
    axes.set_ylabel(f"{len(row_of):,} requests{shared}", fontsize=8)
    axes.legend(ncols=7, fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.1)


def _draw_tokens(axes, trace: Trace, bounds: list[tuple[float, float]]) -> None:
    counts = [split(step) for step in trace.steps]
    # Decodes are at the bottom because they are scheduled first. The scale has no zero: boxes start below 1.
    places = list(zip(bounds, counts, strict=True))
    prefills = [
        (left, right, max(decode, 0.7), decode + prefill) for (left, right), (prefill, decode) in places if prefill
    ]
    decodes = [(left, right, 0.7, decode) for (left, right), (_, decode) in places if decode]
    for boxes, kind in ((prefills, "prefill"), (decodes, "decode")):
        _boxes(axes, boxes, KINDS[kind], edgecolor=KINDS[kind], linewidth=0.2)
    axes.set_yscale("log")
    axes.set_ylim(0.7, 2.2 * max(trace.max_num_batched_tokens, *(sum(count) for count in counts)))
    axes.axhline(trace.max_num_batched_tokens, color="black", lw=0.8, ls="--", zorder=3)
    axes.annotate(
        f"limit {trace.max_num_batched_tokens:,}", (1, trace.max_num_batched_tokens), (0, 2),
        xycoords=("axes fraction", "data"), textcoords="offset points", ha="right", fontsize=7,
    )  # fmt: skip
    axes.set_ylabel("tokens\nin the step", fontsize=8)


def _draw_blocks(axes, trace: Trace, bounds: list[tuple[float, float]]) -> None:
    boxes = []
    following = [left for left, _ in bounds[1:]] + [bounds[-1][1]]
    for step, (left, right), after in zip(trace.steps, bounds, following, strict=True):
        held = right if len(step.finished) >= step.num_running else after  # blocks are held from step to step
        boxes.append((left, held, 0, step.blocks_used))
    _boxes(axes, boxes, GREEN, edgecolor=GREEN, linewidth=0.2)
    most = max(step.blocks_used for step in trace.steps)
    if most > 0.6 * trace.num_blocks:
        axes.axhline(trace.num_blocks, color="black", lw=0.8, ls="--")
        most = trace.num_blocks
    axes.set_ylim(0, 1.1 * max(1, most))
    axes.set_ylabel(f"KV blocks\nof {trace.num_blocks:,}", fontsize=8)


def _short(name: str, width: int = 14) -> str:
    """A request's id without the eight random digits that vLLM adds, and in few characters."""
    name = re.sub(r"-[0-9a-f]{8}$", "", name)
    return name if len(name) <= width else f"{name[:5]}…{name[-8:]}"
