"""The engines of this chapter, and a batch served step by step so that its tokens and its KV cache can be watched."""

import gc
import statistics
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from offline_prompts import Request

from common import memory, models, timing
from common.engine_core import wait_for_output
from common.in_process import changed, core_in_this_process, is_in_process, scheduler_of


def slots(run) -> int:
    """max_num_seqs of the engines that answer large batches here."""
    return 512 if run.machine.gpus else 64


# course-lm on a GPU: it answers these batches sooner than it would be compiled. Its KV cache is given and small, and so
# is the share of the GPU that has to be free: processes that share the GPU, or have just left it, are in nobody's way.
SMALL_ON_A_GPU = {"enforce_eager": True, "kv_cache_memory_bytes": 2**31, "gpu_memory_utilization": 0.3}


def limits(run, model: models.Model | None = None) -> dict[str, object]:
    """The options of the engines here, for this run's model or for course-lm. Without a GPU they are the same."""
    context = (model or run.model).config["max_position_embeddings"]
    options = {"max_model_len": min(4096, context), "max_num_seqs": slots(run)}
    run.setting(**options, seed=0)
    return options | SMALL_ON_A_GPU if model and run.machine.gpus else options


def fresh_engine(run, model: models.Model | None = None, **options: object):
    """An engine of the run that is sure to be a new one, ready a second sooner.

    A start of vLLM looks for garbage several times, each time through all that is imported; an end undoes the freeze.
    """
    models.close_engine()
    gc.freeze()
    return run.engine(model, **options)


def in_process_engine(run, **options: object):
    """An engine of the run whose scheduler is in this process, where its limits can be changed between two runs."""
    with core_in_this_process(True):
        llm = run.engine(**options)
        if not is_in_process(llm):  # one with the same options ran already
            models.close_engine()
            llm = run.engine(**options)
        return llm


def running_at_most(llm, requests: int) -> AbstractContextManager[None]:
    """Another max_num_seqs for the length of a block, at most the engine's own."""
    return changed(scheduler_of(llm), max_num_active_reqs=requests)


@dataclass
class Served:
    """What became of a batch. Latencies count from its start."""

    seconds: float = 0.0
    output_tokens: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0  # of the prompts, found in the prefix cache
    steps: int = 0
    latencies_s: list[float] = field(default_factory=list)
    tpot_ms: list[float] = field(default_factory=list)
    kv_peak_pct: float | None = None
    gpu_util_pct: float | None = None
    joules: float | None = None  # of all GPUs

    @property
    def output_tok_s(self) -> float:
        return self.output_tokens / self.seconds

    @property
    def joules_per_token(self) -> float | None:
        return None if self.joules is None else self.joules / self.output_tokens

    @property
    def mean_s(self) -> float:
        return statistics.mean(self.latencies_s)

    @property
    def tpot_p50_ms(self) -> float | None:
        """Median over the answers of the time for each token after the first, by vLLM's own clock."""
        return statistics.median(self.tpot_ms) if self.tpot_ms else None

    @property
    def cached_pct(self) -> float:
        return self.cached_tokens / self.prompt_tokens * 100


def serve(llm, requests: Sequence[Request], **sampling: object) -> Served:
    """Answer a batch by the engine's own loop, each answer as long as its request says. The prefix cache is emptied."""
    from vllm import SamplingParams

    llm.reset_prefix_cache()
    scheduler = scheduler_of(llm) if is_in_process(llm) else None
    served = Served(kv_peak_pct=0.0 if scheduler else None)
    start = time.perf_counter()
    with memory.sample() as samples:
        for request in requests:
            params = SamplingParams(temperature=0.0, max_tokens=request.output_tokens, ignore_eos=True, **sampling)
            llm.enqueue(request.prompt, params, use_tqdm=False)
        while llm.llm_engine.has_unfinished_requests():
            wait_for_output(llm.llm_engine.engine_core)  # which raises where `step` would wait for ever
            for output in llm.llm_engine.step():
                served.latencies_s.append(time.perf_counter() - start)
                tokens = len(output.outputs[0].token_ids)
                served.output_tokens += tokens
                served.prompt_tokens += len(output.prompt_token_ids)
                served.cached_tokens += output.num_cached_tokens or 0
                times = output.metrics
                if tokens > 1:
                    served.tpot_ms.append((times.last_token_ts - times.first_token_ts) / (tokens - 1) * 1e3)
            served.steps += 1
            if scheduler:
                served.kv_peak_pct = max(served.kv_peak_pct, scheduler.kv_cache_manager.usage * 100)
    served.seconds = time.perf_counter() - start
    served.gpu_util_pct, served.joules = samples.mean_utilisation_pct, samples.joules
    return served


def in_turn(run, contestants: dict) -> dict[object, list]:
    """Each contestant (a function without arguments) in turn, several rounds; what they returned, round by round."""
    found: dict[object, list] = {name: [] for name in contestants}
    for place in range(run.repeats):
        for name, contestant in contestants.items():
            run.step(f"round {place + 1} of {run.repeats}: {name}")
            found[name].append(contestant())
    return found


def median(rounds: Sequence, column: str) -> float | None:
    """The median of an attribute over the rounds of one contestant; None where it was not measured."""
    values = [getattr(each, column) for each in rounds]
    return None if None in values else timing.Repeats(tuple(values)).median


def spread_pct(rounds: Sequence, column: str = "output_tok_s") -> float:
    return timing.Repeats(tuple(getattr(each, column) for each in rounds)).spread_pct
