"""What vLLM's scheduler did, step by step: record it in any engine or server, and read it back.

vLLM takes a scheduler class as an option. `SCHEDULER` names one that is the very scheduler vLLM would have taken and
also writes down each step. In process, or with a server as a child:

    with trace.recording("trace.jsonl"):
        llm = run.engine(scheduler_cls=trace.SCHEDULER)
    ...
    trace.read("trace.jsonl").frame()

By hand:

    COURSE_TRACE_FILE=trace.jsonl vllm serve MODEL --scheduler-cls common.trace.TracingScheduler
    python -m common.trace trace.jsonl --png trace.png --perfetto trace.json

All times are seconds of `time.monotonic()`, a clock that the processes of one machine share.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common import hardware, models, recorder
from common.hardware import Machine
from common.problems import NotOnThisMachine, Problem, explain
from common.steps import Request, Step, Trace
from common.trace_reader import read

__all__ = ["SCHEDULER", "Request", "Step", "Trace", "TracingScheduler", "engine_pair", "files", "read", "recording"]

SCHEDULER = "common.trace.TracingScheduler"


def TracingScheduler(vllm_config, **arguments):
    """The scheduler that vLLM would take for this configuration, which also records each step.

    vLLM asks for a class and calls it. Raises Problem if COURSE_TRACE_FILE is not set.
    """
    return recorder.scheduler(vllm_config, **arguments)


@contextmanager
def recording(file: Path | str) -> Iterator[Path]:
    """Engines and servers that start in this block with `SCHEDULER` record into `file`, until they end.

    A second engine, as with data parallelism, takes `file` with -2 in its name, and so on: see `files`. Within
    another recording both files are written. Raises Problem if `file` exists or its folder can't be written.
    """
    path = Path(file).absolute()
    for taken in (path, recorder.numbered(path, 2)):
        if taken.exists():
            raise Problem(f"{taken} exists already; a trace is never overwritten.", "Name another file, or remove it.")
    _check_writable(path)
    before = os.environ.get(recorder.VARIABLE)
    os.environ[recorder.VARIABLE] = f"{path}\n{before}" if before else str(path)
    try:
        yield path
    finally:
        del os.environ[recorder.VARIABLE]
        if before:
            os.environ[recorder.VARIABLE] = before


def check_folder(folder: Path, beginning: str) -> None:
    """Raise Problem if `folder` has traces or pictures whose names begin so, or can't be written."""
    taken = sorted(path for path in folder.glob(f"{beginning}-*") if path.suffix in (".jsonl", ".json", ".png"))
    if taken:
        raise Problem(f"{folder} holds {taken[0].name} already, and is not overwritten.", "Name another folder.")
    _check_writable(folder / f".{beginning}")


def _check_writable(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        path.unlink()
    except OSError as error:
        meaning, fix = explain(error)
        raise Problem(f"{path} can't be written: {error.strerror}.", fix, meaning) from None


def files(file: Path | str) -> list[Path]:
    """The traces of all engines that recorded under this name, in the order in which they started."""
    found = []
    while (path := recorder.numbered(Path(file), len(found) + 1)).exists():
        found.append(path)
    return found


@contextmanager
def engine_pair(model: models.Model, machine: Machine, file: Path | str, **options: object) -> Iterator[dict]:
    """Two equal engines side by side, {"untraced": LLM, "traced": LLM}; the second records into `file`.

    For `timing.alternate`, to measure what recording costs. On a GPU each gets half of the free memory. Raises
    NotOnThisMachine if it can't hold both.
    """
    from vllm import LLM

    models.close_engine()
    arguments = models.engine_options(model, machine, **options)
    if machine.gpus:
        gpu = hardware.gpus()[0]
        arguments.setdefault("gpu_memory_utilization", round(0.45 * gpu.free_bytes / gpu.total_bytes, 2))
        fit = models.preflight(model, machine, tokens=int(arguments["max_model_len"]))
        if fit and 2 * fit.needed > gpu.free_bytes:
            raise NotOnThisMachine(f"two engines with {model.name} don't fit {gpu.free_bytes / 1e9:.0f} GB")
    else:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    engines = {}
    try:
        with recording(file):
            for name, scheduler in (("untraced", None), ("traced", SCHEDULER)):
                engines[name] = LLM(
                    **arguments, scheduler_cls=scheduler, disable_log_stats=False, use_tqdm_on_load=False
                )
        yield engines
    finally:
        for llm in engines.values():
            llm.llm_engine.engine_core.shutdown()
        engines.clear()
        models.free_memory()


def main(arguments: list[str] | None = None) -> int:
    """Say what a trace holds, and draw it; 1 if it can't be read or written."""
    from common import timeline

    parser = argparse.ArgumentParser(prog="python -m common.trace", description=__doc__.splitlines()[0])
    parser.add_argument("trace", type=Path, metavar="TRACE.jsonl")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the timeline")
    parser.add_argument("--perfetto", type=Path, metavar="FILE", help="write it for https://ui.perfetto.dev")
    options = parser.parse_args(arguments)
    try:
        found = read(options.trace)
        preempted = sum(len(step.preempted) for step in found.steps)
        print(f"{len(found.steps)} steps, {len(found.requests)} requests, {preempted} preemptions, {found.model}")
        if options.png:
            timeline.draw(found, options.png)
        if options.perfetto:
            timeline.chrome(found, options.perfetto)
    except Problem as problem:
        print(f"{problem}\nfix: {problem.fix}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
