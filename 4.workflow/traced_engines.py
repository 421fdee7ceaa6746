"""The engines of this chapter: all with the same limits, their steps recorded, and some of them within this process."""

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from drive import Served, drive
from request_mixes import Request, chat, of_lengths, random_ids

from common import estimator, models, trace
from common.in_process import core_in_this_process, is_in_process, scheduler_of
from common.problems import NotOnThisMachine
from common.trace import Trace

SCALE = 0.125  # of a chat service's lengths: 95 tokens in and 30 out, so that three repeats take seconds


def slots(run) -> int:
    """max_num_seqs: how many requests run at once, in the engine and in static batches."""
    return 64 if run.machine.gpus else 16


def limits(run) -> dict[str, object]:
    """The options of all engines here. The context is the budget, so that chunking can be switched off."""
    context = min(8192 if run.machine.gpus else 2048, run.model.config["max_position_embeddings"])
    options = {
        "max_model_len": context,
        "max_num_batched_tokens": context,
        "max_num_seqs": slots(run),
        "scheduling_policy": "priority",  # with equal priorities this is first come, first served
    }
    if run.machine.gpus:
        # Where the GPU is large enough, room for a second engine or for Transformers beside the first.
        weights = estimator.weight_bytes(run.model.config, models.dtype(run.machine))
        small = 0.4 * run.machine.gpus[0].total_bytes < 1.3 * weights + 4e9
        options["gpu_memory_utilization"] = 0.85 if small else 0.4
    run.setting(**options, seed=0, temperature=0.0, repeats=run.repeats)
    return options


@dataclass
class TracedEngine:
    """An engine that records its steps into `file`. `is_new`: it was started for this experiment."""

    llm: object
    file: Path
    is_new: bool

    def recorded(self) -> Trace:
        """All of its steps so far."""
        return trace.read(self.file)

    def steps_of(self, served: Served) -> Trace:
        """What the scheduler did while these requests were served."""
        return self.recorded().between(served.start_s, served.end_s)

    @property
    def scheduler(self):
        """vLLM's scheduler, whose limits can be changed between two runs; only where the engine is in process."""
        return scheduler_of(self.llm)


_files: MutableMapping[object, Path] = WeakKeyDictionary()  # by engine; weak, as a closed one has to leave the GPU
_started: list[Path] = []  # the traces of all engines so far


def traced_engine(run, in_process: bool = False, **options: object) -> TracedEngine:
    """An engine of this run's model that is traced; the one that runs already if nothing else is asked for.

    `in_process` puts scheduler and worker into this process, where vLLM would start a process for them; without a GPU
    the course always does. The trace goes beside the log.
    """
    in_process = in_process or not run.machine.gpus
    file = run.logs / f"engine-{len(_started) + 1}.jsonl"

    def start() -> object:
        with trace.recording(file), core_in_this_process(in_process):
            return run.engine(scheduler_cls=trace.SCHEDULER, **options)

    llm = start()
    if is_in_process(llm) != in_process:
        models.close_engine()
        llm = start()
    is_new = llm not in _files
    if is_new:
        _files[llm] = file
        _started.append(file)
    return TracedEngine(llm, _files[llm], is_new)


@contextmanager
def plain_engine(run) -> Iterator[object]:
    """For a comparison: the same engine with vLLM's own scheduler, beside the one that runs.

    Raises NotOnThisMachine if the GPU can't hold both.
    """
    options = limits(run)
    if options.get("gpu_memory_utilization", 0) > 0.5:
        raise NotOnThisMachine("two engines of this model do not fit the GPU side by side")
    from vllm import LLM

    run.step("starting a second engine")
    arguments = models.engine_options(run.model, run.machine, **options)
    with core_in_this_process(not run.machine.gpus):
        llm = LLM(**arguments, disable_log_stats=False, use_tqdm_on_load=False)
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        if not run.machine.gpus:
            models.close_engine()  # it was in the same process, and what they shared is gone


def engine(run, in_process: bool = False) -> TracedEngine:
    """The traced engine of this chapter, warmed up; in a process of its own (vLLM's default) or in this one."""
    started = traced_engine(run, in_process, **limits(run))
    if started.is_new:
        run.step("warming up")
        drive(started.llm, of_lengths(chat(2 * slots(run), SCALE), "warm-up"))
        drive(started.llm, [Request("warm-up", random_ids(started.llm.model_config.max_model_len - 8), 8)])
    return started
