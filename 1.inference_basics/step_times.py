"""How long vLLM's steps take, seen from outside: the time between one return of `LLMEngine.step` and the next.

And how that compares with the ceilings, and where the rest goes.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise

from common import engine_core, estimator, memory, models, profiling, throughput
from common.ceilings import Ceilings
from common.hardware import GIB, Machine
from common.problems import Problem
from common.run import Run
from common.throughput import random_prompts

MARGIN = 8  # steps that may pass until all requests have arrived in the engine's process
SHORT = 128  # prompt tokens of most decode steps
PROFILED = 16  # steps in a profile


@dataclass(frozen=True)
class Case:
    """One kind of step: the prefill of a prompt (batch 1), or the decode of `batch` requests with such prompts.

    The engine must take `budget` tokens a step (max_num_batched_tokens), at least a whole prompt. A decode step is
    measured as the median of `steps` of them.
    """

    phase: str
    batch: int
    input_tokens: int
    budget: int
    steps: int = 0

    def like(self, phase: str, tokens: int) -> "Case":
        """The step with that many tokens: a prefill of them, or the decode of as many short requests."""
        return Case(phase, *((1, tokens) if phase == "prefill" else (tokens, SHORT)), self.budget, self.steps)

    @property
    def name(self) -> str:
        """The phase, for a decode after longer prompts with their length: decode_2048."""
        long = self.phase == "decode" and self.input_tokens != SHORT
        return f"{self.phase}_{self.input_tokens}" if long else self.phase

    @property
    def tokens(self) -> int:
        """Tokens that are computed in the step."""
        return self.input_tokens if self.phase == "prefill" else self.batch

    @property
    def skipped(self) -> int:
        """Steps until every request has its prompt behind it."""
        return math.ceil(self.batch * self.input_tokens / self.budget) + MARGIN

    @property
    def output_tokens(self) -> int:
        return 1 if self.phase == "prefill" else self.skipped + self.steps + 1

    @property
    def cached_tokens(self) -> float:
        """Tokens in the KV cache half-way; requests that began earlier have a little more, later ones less."""
        return 0 if self.phase == "prefill" else self.batch * (self.input_tokens + (self.skipped + self.steps) / 2)

    def work(self, config: dict, dtype: str) -> tuple[float, float]:
        """(bytes to read, floating-point operations) of the step."""
        attended = self.input_tokens**2 / 2 if self.phase == "prefill" else self.cached_tokens
        flop = estimator.step_flop(config, self.tokens, attended, sampled_tokens=self.batch)
        return estimator.step_bytes(config, self.cached_tokens, dtype), flop

    def seconds(self, llm) -> float:
        """Measure it: from handing over the prompt to its first token, or the median decode step."""
        ends = list(self.run(llm))
        if self.phase == "prefill":
            return ends[-1] - ends[0]
        durations = [end - begin for begin, end in pairwise(ends)]
        return statistics.median(durations[self.skipped : self.skipped + self.steps])

    def run(self, llm) -> Iterator[float]:
        """Run all prompts at once, as `LLM.generate` does; the time of the start, then that of each step's end."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        tokens, kind = self.output_tokens, RequestOutputKind.FINAL_ONLY
        sampling = SamplingParams(temperature=0.0, max_tokens=tokens, ignore_eos=True, output_kind=kind)
        prompts = random_prompts(self.batch, self.input_tokens)
        yield time.perf_counter()
        for number, ids in enumerate(prompts):
            llm.llm_engine.add_request(str(number), {"prompt_token_ids": ids}, sampling)
        while llm.llm_engine.has_unfinished_requests():
            engine_core.wait_for_output(llm.llm_engine.engine_core)
            llm.llm_engine.step()
            yield time.perf_counter()


def limit(run: Run) -> int:
    """max_model_len and max_num_batched_tokens of the engines: whatever prompt they take is computed in one step."""
    return min(run.model.config["max_position_embeddings"], 8192 if run.machine.gpus else 2048)


def choose(run: Run) -> list[Case]:
    """The steps to measure: prefills by length, decodes by batch size, and two decodes after longer prompts.

    Raises Problem if one does not fit the context or the KV cache.
    """
    gpu, most = bool(run.machine.gpus), limit(run)
    standard = run.size(full=[32, 128, 512, 2048, most - 1], smoke=[128, 512])
    prompts = run.options.prompts or [prompt for prompt in standard if prompt < most]
    sizes = run.size(full=[1, 8, 32, 64, 128, 256, 512] if gpu else [1, 4, 16, 64, 128, 256], smoke=[1, 64])
    batches = sorted({1, *(run.options.batches or sizes)})  # the others are held against batch 1
    long, steps = 2048 if gpu else 512, run.size(full=32, smoke=8)
    cases = [Case("prefill", 1, prompt, most) for prompt in sorted(set(prompts))]
    cases += [Case("decode", batch, SHORT, most, steps) for batch in batches]
    cases += [Case("decode", batch, long, most, steps) for batch in (1, 64) if batch in batches and not run.smoke]
    for case in cases:
        check(case, run.model, run.machine)
    return cases


def check(case: Case, model: models.Model, machine: Machine) -> None:
    """Raise Problem if it is longer than a step may be, or larger than the KV cache: some requests would wait then."""
    dtype, room = models.dtype(machine), models.CPU_KV_BYTES
    if machine.gpus:
        weights = estimator.weight_bytes(model.config, dtype)
        room = int(0.9 * machine.gpus[0].free_bytes) - weights - estimator.OVERHEAD_BYTES
    tokens = case.input_tokens + case.output_tokens
    if tokens > case.budget:
        raise Problem(
            f"A prompt of {case.input_tokens:,} tokens with {case.output_tokens} of answer does not fit the "
            f"{case.budget:,} that this experiment gives {model.name}.",
            "Take shorter --prompts." if case.phase == "prefill" else "Take smaller --batches.",
        )
    needed = case.batch * tokens * estimator.kv_bytes_per_token(model.config, dtype)
    if needed > room:
        raise Problem(
            f"{case.batch:,} requests of {tokens} tokens take {needed / GIB:.1f} GiB of KV cache. There are "
            f"{room / GIB:.1f}, so some would wait.",
            "Take smaller --batches.",
        )


def start_engine(run: Run, cases: list[Case]):
    """A vLLM engine that takes the cases without queueing, and on a GPU one that can be profiled."""
    options: dict[str, object] = {"max_num_seqs": max(case.batch for case in cases), "max_model_len": limit(run)}
    if run.machine.gpus:
        options["profiler_config"] = profiling.decode_steps(run.logs / "profiles", skip=2 * MARGIN, steps=PROFILED)
    return run.engine(enable_prefix_caching=False, max_num_batched_tokens=limit(run), **options)


def against(best: Ceilings, case: Case, seconds: float, config: dict, dtype: str) -> dict[str, object]:
    """The columns that hold a measured step against the ceilings."""
    step_bytes, step_flop = case.work(config, dtype)
    ceiling_s = best.seconds(step_bytes, step_flop)
    return {
        "step_ms": seconds * 1e3,
        "tok_s": case.tokens / seconds,
        "ceiling_ms": ceiling_s * 1e3,
        "ceiling_pct": ceiling_s / seconds * 100,
        "limit": best.limit(step_bytes, step_flop, seconds),
        "step_tokens": case.tokens,
        "read_gb_s": step_bytes / seconds / 1e9,
        "tflop_s": step_flop / seconds / 1e12,
    }


def doubling(points: list[tuple[float, float]]) -> float | None:
    """At how many tokens a step takes twice as long as the first of the points, linear between them; None if nowhere.

    points: (tokens in a step, seconds), by rising tokens.
    """
    wanted = 2 * points[0][1]
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 < wanted <= y1:
            return x0 + (x1 - x0) * (wanted - y0) / (y1 - y0)
    return None


def profile(run: Run, llm, batch: int) -> dict[str, object]:
    """Where the time of 16 decode steps of `batch` short requests goes; on a GPU also the energy of a token.

    The engine is one of `start_engine`. Energy is that of a run of 1,024 tokens each, because a GPU reports its power
    as the mean of a second.
    """
    run.step(f"profiling {PROFILED} steps of {batch} requests")
    if not run.machine.gpus:
        case = Case("decode", batch, SHORT, limit(run), PROFILED)
        ends = case.run(llm)
        deque(islice(ends, case.skipped + 1), maxlen=0)  # the start, and the steps until all decode
        busy_pct, groups = profiling.of_cpu(lambda steps: deque(islice(ends, steps), maxlen=0), PROFILED)
        deque(ends, maxlen=0)  # the rest of the answers
        found = {"busy_pct": busy_pct}
    else:
        measure = throughput.of_vllm(llm, batch, SHORT, 1024)
        trace = profiling.trace_of_vllm(llm, run.logs / "profiles", measure, steps=4 * PROFILED)
        counted, groups = profiling.kernels(trace, PROFILED), profiling.groups(profiling.kernel_durations(trace))
        found = {"busy_pct": counted["gpu_busy_pct"], "kernels_per_step": counted["kernels_per_step"]}
        with memory.sample() as samples:
            rate = measure()
        found["joules_per_token"] = samples.mean_power_w / rate if samples.mean_power_w else None
    shares = ", ".join(f"{group} {share:.0f} %" for group, share in list(groups.items())[:4])
    kind = "GPU kernels" if run.machine.gpus else "PyTorch's operators"
    run.show(f"where the time goes, batch {batch}", f"{kind} run in {found['busy_pct']:.0f} % of it; of that {shares}")
    return found | {"top_groups": shares}
