"""Clocks and statistics: warm-up, repeats, medians, percentiles, and the latencies of a stream of tokens."""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0 to 100) of `values`, linear between neighbours as numpy's default is.

    Raises ValueError for no values.
    """
    if len(values) == 0:
        raise ValueError("a percentile of no values does not exist")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    below, above = math.floor(position), math.ceil(position)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True)
class Repeats:
    """Several measurements of one thing, in whatever unit they were taken."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread_pct(self) -> float:
        """Largest minus smallest, in percent of the median."""
        return (max(self.values) - min(self.values)) / self.median * 100 if self.median else 0.0


def synchronise() -> None:
    """Wait until the GPU has done all that was asked of it; nothing without a GPU."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object]) -> float:
    """Wall-clock seconds of one call, with the device synchronised before and after."""
    synchronise()
    start = time.perf_counter()
    work()
    synchronise()
    return time.perf_counter() - start


def alternate(contestants: Mapping[str, Callable[[], float]], repeats: int = 3, warmups: int = 1) -> dict[str, Repeats]:
    """Run each contestant `warmups` times unrecorded, then all in turn, `repeats` rounds.

    Turns are taken so that a machine that slows down slows both sides of a comparison.
    Each contestant returns its own figure (seconds, tokens/s, …).
    """
    for contestant in contestants.values():
        for _ in range(warmups):
            contestant()
    rounds = [{name: contestant() for name, contestant in contestants.items()} for _ in range(repeats)]
    return {name: Repeats(tuple(figures[name] for figures in rounds)) for name in contestants}


def repeat(contestant: Callable[[], float], repeats: int = 3, warmups: int = 1) -> Repeats:
    """`alternate` for one contestant."""
    return alternate({"only": contestant}, repeats, warmups)["only"]


@dataclass(frozen=True)
class Stream:
    """One streamed answer: when it was asked for and when each token arrived, in seconds of one clock."""

    start_s: float
    token_s: tuple[float, ...]

    @property
    def ttft_ms(self) -> float:
        """Time to first token."""
        return (self.token_s[0] - self.start_s) * 1e3

    @property
    def itl_ms(self) -> list[float]:
        """Inter-token latencies: the gaps between tokens that follow each other."""
        return [(b - a) * 1e3 for a, b in zip(self.token_s, self.token_s[1:], strict=False)]

    @property
    def tpot_ms(self) -> float | None:
        """Time per output token after the first: the mean of the gaps; None for a single token."""
        gaps = len(self.token_s) - 1
        return (self.token_s[-1] - self.token_s[0]) / gaps * 1e3 if gaps else None

    @property
    def end_to_end_ms(self) -> float:
        return (self.token_s[-1] - self.start_s) * 1e3
