"""0.intro: what does vLLM change, against Transformers on the same hardware?

The question: a model answers well in a notebook. What happens when it has users?

Background. Generating text is two kinds of work. Prefill reads the prompt, all tokens at once. Decode then makes
one token after the other, and for each of them reads every weight of the model from memory. One request leaves
the processor idle while the memory delivers; a second request in the same step gets those weights for nothing.
So throughput comes from the batch, and a server is as good as its way of filling it:

  naive             one request at a time; the others wait
  static batching   whoever waits goes together; who comes a moment later waits for the longest of them
  vLLM              requests join and leave at every step, and the KV cache is allotted in blocks

With a GPU the default model is a published shape with random weights, so speed is real and text is not; without
one it is course-lm. To copy:

  make demo CH=0                                   all experiments
  make demo CH=0 ARGS='--only headline'            Transformers against vLLM, in tokens/s
  make demo CH=0 ARGS='--replay h100'              the recorded run of an H100
"""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import httpx
import pandas as pd

from common import estimator, hardware, load, memory, models, profiling, serving, throughput, timing
from common.chapter import Chapter
from common.problems import Problem

chapter = Chapter(__file__, speed=True)
chapter.option("--input-tokens", type=int, default=100, help="prompt length of headline and agreement (100)")
chapter.option("--output-tokens", type=int, default=200, help="answer length of headline and agreement (200)")

DEADLINE_S = 10.0  # what a user waits before giving up; a request not answered by then has failed
PROFILED = 16  # decode steps in a profile
WINDOW_S = 5.0  # how long users go on sending at each level
NAIVE_OUTPUT_TOKENS = 32
# Default prices per hour, so that dollars can be shown; --gpu-price sets your own.
PRICES = {"h100": (2.99, "Lambda, on-demand, 1 × H100 SXM"), "cpu": (0.0893, "AWS c7i.large, 2 vCPU, on-demand")}


# ---------------------------------------------------------------------------------------------- naive_server


@contextmanager
def transformers_server(run, max_batch: int):
    """naive_server.py as a child process for the length of a block."""
    port = serving.free_port()
    script = Path(__file__).parent / "naive_server.py"
    command = [
        sys.executable,
        str(script),
        "--model",
        run.model.name,
        "--port",
        str(port),
        "--max-batch",
        str(max_batch),
    ]
    models.close_engine()
    with serving.child_server(command, f"http://127.0.0.1:{port}", run.logs / f"naive-{max_batch}.log") as server:
        yield server


def measure_users(run, name: str, server: serving.Server, levels: list[int]) -> list[dict]:
    """Closed-loop load at each number of users; a row for each."""
    window_s = run.size(full=WINDOW_S, smoke=1.5)
    target = load.Target(
        server.url, run.model.name, throughput.random_prompts(4096, 100), NAIVE_OUTPUT_TOKENS, DEADLINE_S, stream=False
    )
    rows = []
    with load.clients(users=max(levels)) as clients:
        clients.closed_loop(target, users=1, seconds=0.0)  # warm-up
        for users in levels:
            if name != "naive":  # the first batch of a size takes Transformers seconds longer than the next
                run.step(f"{name}: warming up with {users} users")
                clients.closed_loop(target, users, seconds=0.0, at_least=run.size(full=3, smoke=1))
            run.step(f"{name}: {users} users")
            with memory.sample() as samples:
                result = clients.closed_loop(target, users, window_s)
            run.count(result.output_tokens)
            server.check()
            rows.append(
                {
                    "server": name,
                    "users": users,
                    "output_tok_s": result.output_tok_s,
                    "p50_s": result.latency_s(50),
                    "p99_s": result.latency_s(99),
                    "failed": result.failed,
                    "gpu_memory_gb": samples.peak_gb,
                    "gpu_util_pct": samples.mean_utilisation_pct,
                    "joules_per_token": samples.joules / result.output_tokens
                    if samples.joules and result.output_tokens
                    else None,
                }
            )
            if name != "vllm":
                httpx.post(f"{server.url}/v1/discard", trust_env=False)
                clients.closed_loop(target, users=1, seconds=0.0)  # wait until it has finished what it was at
    return rows


@chapter.experiment
def naive_server(run):
    """How do three servers stand up to 1, 2, 4 … 64 users?"""
    levels = run.size(full=[1, 2, 4, 8, 16, 32, 64], smoke=[1, 8])
    most = max(levels)
    run.setting(
        input_tokens=100,
        output_tokens=NAIVE_OUTPUT_TOKENS,
        deadline_s=DEADLINE_S,
        seed=0,
        window_s=run.size(full=WINDOW_S, smoke=1.5),
        warmups=run.size(full=3, smoke=1),
    )
    run.predict(
        f"static batching at {most} users over naive",
        most,
        "x",
        because="a decode step reads the weights once, however many requests share it",
    )
    rows = []
    for name, max_batch in (("naive", 1), ("static_batching", most)):
        run.step(f"starting the {name} server")
        with transformers_server(run, max_batch) as server:
            rows += measure_users(run, name, server, levels)
    # Prefix caching off: every prompt is new anyway, and no figure here may come from a cache.
    with run.serve(enable_prefix_caching=False) as server:
        rows += measure_users(run, "vllm", server, levels)
    table = pd.DataFrame(rows)
    best = table.groupby("server")["output_tok_s"].max()
    at_most = table[table.users == most].set_index("server")
    one = table[(table.server == "naive") & (table.users == 1)].iloc[0]
    run.measured(
        f"static batching at {most} users over naive", at_most.output_tok_s["static_batching"] / one.output_tok_s
    )
    run.reading(
        f"At {most} users vLLM gives {at_most.output_tok_s['vllm'] / best['naive']:.0f} times the best of naive, "
        f"and fails {at_most.failed['vllm']} requests where naive fails {at_most.failed['naive']}."
    )
    return table


# -------------------------------------------------------------------------------------------------- headline


def lengths(run) -> tuple[int, int]:
    """(input tokens, output tokens) of headline and agreement. Raises Problem if the model can't hold both."""
    asked, limit = (run.options.input_tokens, run.options.output_tokens), run.model.config["max_position_embeddings"]
    if min(asked) < 1 or sum(asked) > limit:
        raise Problem(
            f"{asked[0]} tokens in and {asked[1]} out do not fit {run.model.name}, which holds {limit} in all.",
            "Lower --input-tokens or --output-tokens (both at least 1), or take another --model.",
        )
    run.setting(input_tokens=asked[0], output_tokens=asked[1], warmups=1, repeats=run.repeats, seed=0)
    return asked


def best_batch(run, network, tokens: tuple[int, int]) -> int:
    """The batch at which Transformers gives most tokens/s: enlarged until it gains less than 5 % or memory ends."""
    import torch

    best, best_rate = 1, 0.0
    for batch in run.size(full=[16, 64, 256, 512] if run.machine.gpus else [8, 32, 64], smoke=[4]):
        run.step(f"looking for Transformers' best batch: {batch}")
        try:
            rate = throughput.of_transformers(network, batch, *tokens)()
        except torch.OutOfMemoryError:
            break
        finally:
            models.free_memory()
        if rate < best_rate * 1.05:
            break
        best, best_rate = batch, rate
    return best


def with_power(run, name: str, measure: Callable[[], float], watts: dict[str, float | None]) -> Callable[[], float]:
    """The same measurement, which also notes the GPU's mean power in `watts`."""

    def measured() -> float:
        run.step(f"all in turn, a warm-up and {run.repeats} rounds: {name}")
        with memory.sample() as samples:
            rate = measure()
        watts[name] = samples.mean_power_w
        return rate

    return measured


@chapter.experiment(compare="output_tok_s")
def headline(run):
    """How many tokens/s do Transformers and vLLM make of the same model, and where does the time go?"""
    tokens = lengths(run)
    peak = hardware.peak(run.machine.gpus[0].name) if run.machine.gpus else None
    if peak:
        step_bytes = estimator.step_bytes(run.model.config, tokens[0] + tokens[1] / 2, models.dtype(run.machine))
        why = "the ceiling: bandwidth over the bytes that a step reads, weights and KV cache"
        run.predict("vLLM at batch 1", peak.bandwidth_bytes_s / step_bytes, "tokens/s", because=why)
    run.step("loading the model in Transformers")
    models.close_engine()
    network, _ = models.transformers_model(run.model, run.machine)
    batch, large = best_batch(run, network, tokens), run.size(full=512 if run.machine.gpus else 256, smoke=8)
    of_transformers = {
        "transformers_batch_1": throughput.of_transformers(network, 1, *tokens),
        "transformers_best_batch": throughput.of_transformers(network, batch, *tokens),
    }
    batches = {"transformers_batch_1": 1, "transformers_best_batch": batch}
    batches |= {"vllm_batch_1": 1, "vllm_same_batch": batch, "vllm_large_batch": large}
    watts: dict[str, float | None] = {}

    def rounds(contestants: dict[str, Callable[[], float]]) -> dict[str, timing.Repeats]:
        watched = {name: with_power(run, name, measure, watts) for name, measure in contestants.items()}
        return timing.alternate(watched, run.repeats)

    def profiled(contestants: dict[str, Callable[..., float]]) -> None:
        for name, measure in contestants.items() if run.machine.gpus else ():
            run.step(f"profiling {PROFILED} decode steps of {name}")
            if "vllm" in name:
                trace = profiling.trace_of_vllm(llm, run.logs / "profiles", measure, steps=4 * PROFILED)
                profiles[name] = profiling.kernels(trace, PROFILED)
            else:
                profiles[name] = profiling.of_this_process(network, measure, PROFILED)

    rates: dict[str, timing.Repeats] = {}
    profiles: dict[str, dict[str, float]] = {}
    # Rounds of all five in turn, if the GPU holds Transformers' model beside vLLM's. If not, and on a CPU, where vLLM
    # binds this process to its cores for good, Transformers goes first, in rounds of its own.
    in_turn = bool(run.machine.gpus) and models.two_fit(run.model, run.machine, share=0.4)
    if not in_turn:
        rates |= rounds(of_transformers)
        profiled(of_transformers)
        of_transformers, network = {}, None
        models.free_memory()
    engine: dict[str, object] = {"enable_prefix_caching": False, "max_num_seqs": max(batches.values())}
    if run.machine.gpus:
        engine["profiler_config"] = profiling.decode_steps(run.logs / "profiles", skip=32, steps=PROFILED)
    if in_turn:  # Transformers keeps its weights, and needs room for its KV cache: vLLM gets 60 % of what is left
        gpu = hardware.gpus()[0]
        engine["gpu_memory_utilization"] = round(0.6 * gpu.free_bytes / gpu.total_bytes, 2)
    llm = run.engine(**engine)
    contestants = of_transformers | {
        name: throughput.of_vllm(llm, size, *tokens) for name, size in batches.items() if "vllm" in name
    }
    rates |= rounds(contestants)
    run.count(sum(batches.values()) * tokens[1] * (run.repeats + 1))
    profiled(contestants)
    rate = {name: repeats.median for name, repeats in rates.items()}
    table = pd.DataFrame(
        {
            "row": name,
            "batch": batches[name],
            "output_tok_s": rate[name],
            "spread_pct": rates[name].spread_pct,
            "x_batch_1": rate[name] / rate["transformers_batch_1"],
            "x_best_batch": rate[name] / rate["transformers_best_batch"],
            "gpu_busy_pct": profiles.get(name, {}).get("gpu_busy_pct"),
            "kernels_per_step": profiles.get(name, {}).get("kernels_per_step"),
            "joules_per_token": watts[name] / rate[name] if watts[name] else None,
        }
        for name in batches
    )
    if peak:
        run.measured("vLLM at batch 1", rate["vllm_batch_1"])
    run.setting(alternated=in_turn)
    ratio = table.set_index("row")
    run.reading(
        f"With {large} requests vLLM makes {ratio.x_batch_1['vllm_large_batch']:.0f} times as much "
        f"as Transformers of one, "
        f"{ratio.x_best_batch['vllm_large_batch']:.1f} times what it makes at its best batch of {batch}, "
        f"and {ratio.x_batch_1['vllm_batch_1']:.1f} times at one request."
    )
    return table


# ------------------------------------------------------------------------------------------ cost, agreement


@chapter.experiment
def cost(run):
    """What do a million output tokens cost on each of the above?"""
    default, source = PRICES["h100" if run.machine.gpus else "cpu"]
    price = run.options.gpu_price or default
    run.setting(price_source=source if run.options.gpu_price is None else "given with --gpu-price")
    rows = list(run.rows_of("headline"))
    served = run.rows_of("naive_server")
    most = max(row["users"] for row in served)
    for row in served:
        if row["users"] == most:
            rows.append(row | {"row": f"{row['server']}_{most}_users"})
    table = pd.DataFrame(rows)[["row", "output_tok_s", "joules_per_token"]]
    table.insert(2, "price_usd_per_hour", price)
    # A server that answers nobody in time has no finite price per token.
    table.insert(3, "usd_per_million_tokens", price / 3600 / table.output_tok_s.replace(0, float("nan")) * 1e6)
    dollars = table.set_index("row").usd_per_million_tokens
    run.reading(
        f"At {price} dollars an hour a million output tokens cost {dollars['transformers_batch_1']:,.2f} dollars with "
        f"Transformers at batch 1 and {dollars['vllm_large_batch']:,.2f} with vLLM at its largest batch here."
    )
    return table


@chapter.experiment
def agreement(run):
    """Do our tokens/s agree with those of vLLM's own benchmark?"""
    tokens = lengths(run)
    count = run.size(full=500 if run.machine.gpus else 64, smoke=8)
    # On a GPU the engine here and the benchmark's, which starts anew each time, share the memory if it holds both.
    both = models.two_fit(run.model, run.machine, share=0.45)
    engine = {"gpu_memory_utilization": 0.45} if run.machine.gpus and both else {}
    run.setting(requests=count, temperature=1.0, alternated=both)
    measure = throughput.of_vllm(run.engine(enable_prefix_caching=False, **engine), count, *tokens, temperature=1.0)

    def measure_bench() -> float:
        if not both:
            models.close_engine()
        run.step(f"{count} requests, measured in turn: vllm bench throughput")
        options = {"enable_prefix_caching": False, **engine}
        rate = throughput.of_vllm_bench(run.model, run.machine, count, *tokens, run.logs, **options)
        run.step(f"{count} requests, measured in turn: here")
        return rate

    measure()  # warm-up, which the benchmark makes by itself
    contestants = {"course": measure, "vllm bench throughput": measure_bench}
    if both:
        rates = timing.alternate(contestants, run.repeats, warmups=0)
    else:
        rates = {tool: timing.repeat(contestant, run.repeats, warmups=0) for tool, contestant in contestants.items()}
    run.count(count * tokens[1] * (3 * run.repeats + 1))
    table = pd.DataFrame(
        {"tool": tool, "output_tok_s": rates[tool].median, "spread_pct": rates[tool].spread_pct}
        for tool in ("vllm bench throughput", "course")
    )
    table["difference_pct"] = (table.output_tok_s / table.output_tok_s[0] - 1) * 100
    run.reading(f"This course's figure is {table.difference_pct[1]:+.1f} % from that of vllm bench throughput.")
    return table


chapter.figure(
    name="throughput_by_users", experiment="naive_server", x="users", y="output_tok_s", by="server",
    log_x=True, log_y=True, title="Output tokens per second by concurrent users",
)  # fmt: skip
chapter.figure(
    name="latency_by_users", experiment="naive_server", x="users", y="p99_s", by="server",
    log_x=True, title="99th percentile latency by concurrent users",
)  # fmt: skip
chapter.figure(
    name="headline", experiment="headline", x="row", y="output_tok_s", kind="bar",
    title="Transformers against vLLM, output tokens per second",
)  # fmt: skip

if __name__ == "__main__":
    chapter.main()
