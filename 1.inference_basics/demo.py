"""1.inference_basics: what happens in one forward pass, and how close does vLLM come to what the machine can do?

The question: what limits a token, and how does one measure it?

Background. A forward pass reads the weights from memory and multiplies them with the tokens of that step. Prefill
computes a whole prompt in one pass: much arithmetic for each byte read. Decode computes one token for each sequence:
every weight is read for two operations. So there are two ceilings, and every step is held against the one that counts:

  memory    bytes of weights and KV cache that the step reads, over the bandwidth of a copy
  compute   operations of the step, over the rate of a large matrix product

The KV cache keeps the keys and values of earlier tokens, so that decode need not compute them again; it costs memory,
and how much depends on the shape of the attention. With a GPU the default model is a published shape with random
weights; without one it is course-lm, which is so small that Python takes longer than memory and arithmetic. To copy:

  make demo CH=1                                       all experiments
  make demo CH=1 ARGS='--only prefill_and_decode'      what a step costs, and why
  make demo CH=1 ARGS='--replay h100'                  the recorded run of an H100
"""

import statistics
from functools import partial

import cache_timing
import kv_allocation
import kv_cache as by_hand
import latency_rounds
import pandas as pd
import static_batches
import step_times

from common import ceilings as best_rates
from common import estimator, hardware, lengths, load, models, prices, throughput, timing
from common.chapter import Chapter
from common.hardware import GIB
from common.problems import Problem

chapter = Chapter(__file__, speed=True)
chapter.option("--prompts", type=int, nargs="+", metavar="TOKENS", help="prompt lengths of prefill_and_decode")
chapter.option("--batches", type=int, nargs="+", metavar="N", help="batch sizes of prefill_and_decode")
chapter.option("--requests", type=int, default=64, help="requests of padding (64)")
chapter.option("--loads", type=float, nargs="+", metavar="SHARE", help="arrival rates of latency, over the capacity")
chapter.option("--seconds", type=float, default=5.0, help="how long requests arrive at each rate of latency (5)")
chapter.option("--slo-ttft-ms", type=float, default=300.0, help="a good answer begins within this (300)")
chapter.option("--slo-tpot-ms", type=float, default=30.0, help="and its other tokens take this in the mean (30)")
chapter.option("--kv-gib", type=float, default=40.0, help="memory for the KV cache in kv_bytes, in GiB (40)")


def within(run, **limits: tuple[float, float]) -> None:
    """Raise Problem for an option outside its (least, most); one that was not given is None."""
    for name, (least, most) in limits.items():
        given, flag = getattr(run.options, name), f"--{name.replace('_', '-')}"
        for value in given if isinstance(given, list) else [given]:
            if value is not None and not least <= value <= most:
                raise Problem(f"{flag} {value:g} can't be measured.", f"Take something from {least:g} to {most:,.9g}.")


def start_clean(run, step: str) -> None:
    """Give memory back to those who come next: an engine of ours, and what PyTorch keeps on the GPU."""
    run.step(step)
    models.close_engine()
    models.free_memory()


def measured_ceilings(run) -> best_rates.Ceilings:
    """The two ceilings for this run's model, measured now."""
    run.step("measuring the ceilings")
    best = best_rates.measure(run.model, run.machine, run.repeats)
    run.setting(copy_gb_s=best.copy_bytes_s / 1e9, matmul_tflop_s=best.matmul_flop_s / 1e12)
    return best


# -------------------------------------------------------------------------------------------------- ceilings


@chapter.experiment
def ceilings(run):
    """How fast does this machine copy, multiply, and feed its GPU, and what does the data sheet say?"""
    peak, rows = hardware.peak(run.machine.gpus[0].name) if run.machine.gpus else None, []
    if peak:
        why = "refreshing, and turning from reading to writing, take a tenth of the memory's time"
        run.predict("copy beyond the caches", 0.9 * peak.bandwidth_bytes_s / 1e9, "GB/s", because=why)
        why = "with all units busy the power limit keeps the clock below the data sheet's"
        run.predict("matmul", 0.8 * peak.bf16_flop_s / 1e12, "TFLOP/s", because=why)
    if not run.machine.gpus:
        run.predict("bfloat16 over float32", 2, "x", because="a register holds twice as many numbers of half the size")
    for each in best_rates.sweep(run.machine, small=run.smoke):
        run.step(f"{each.name}, {each.size}")
        rate, scale = each.run(run.repeats), {"gb_s": 1e9, "tflop_s": 1e12}[each.unit]
        row = {"row": each.name, "size": each.size, "gb_s": None, "tflop_s": None, each.unit: rate.median / scale}
        share = each.published and rate.median / each.published * 100
        row |= {"spread_pct": rate.spread_pct, "published": each.published and each.published / scale}
        rows.append(row | {"of_published_pct": share})
    models.free_memory()
    table = pd.DataFrame(rows)
    copied = table[table.row == "copy"].gb_s.iloc[-1]  # the largest: no cache holds it
    matmul = table[table.row.str.startswith("matmul")].groupby("row", sort=False).tflop_s.max()
    if peak:
        run.measured("copy beyond the caches", copied)
        run.measured("matmul", matmul.iloc[0])
    if not run.machine.gpus:
        run.measured("bfloat16 over float32", matmul["matmul_bfloat16"] / matmul["matmul_float32"])
    run.setting(repeats=run.repeats, warmups=1, copies="bytes read and bytes written both count")
    run.reading(
        f"For each byte that the memory moves, this machine can do {matmul.iloc[0] * 1e3 / copied:,.0f} operations; "
        "a decode step for one sequence needs one."
    )
    return table


# ---------------------------------------------------------------------------------------- prefill_and_decode


@chapter.experiment
def prefill_and_decode(run):
    """What does a step cost by the tokens in it, and how far is that from what the machine can do?"""
    within(run, prompts=(1, 1e6), batches=(1, 4096), gpu_price=(0.001, 1e6))
    config, dtype = run.model.config, models.dtype(run.machine)
    cases = step_times.choose(run)
    one = next(case for case in cases if case.phase == "decode")
    price, price_source = prices.per_hour(run.machine, run.options.gpu_price)
    best = measured_ceilings(run)
    run.setting(repeats=run.repeats, warmups=1, decode_steps=one.steps, price_source=price_source, alternated=True)
    why = f"{best.copy_bytes_s / 1e9:,.0f} GB/s, just measured, over the bytes of weights and KV cache that it reads"
    run.predict("decode at batch 1", 1 / best.seconds(*one.work(config, dtype)), "tokens/s", because=why)
    twice = "{}: tokens in a step that takes twice as long as one token"
    for phase in ("prefill", "decode"):
        points = [(n, best.seconds(*one.like(phase, n).work(config, dtype))) for n in range(1, 4096)]
        why = "the arithmetic of fewer tokens is done while the weights are read"
        run.predict(twice.format(phase), step_times.doubling(points), "tokens", because=why)
    llm = step_times.start_engine(run, cases)
    run.step(f"{len(cases)} kinds of step in turn, a warm-up and {run.repeats} rounds")
    times = timing.alternate({case: partial(case.seconds, llm) for case in cases}, run.repeats)
    run.count(sum(case.batch * case.output_tokens for case in cases) * (run.repeats + 1))
    rows = []
    for case, repeats in times.items():
        row = {"phase": case.name, "batch": case.batch, "input_tokens": case.input_tokens}
        row |= step_times.against(best, case, repeats.median, config, dtype)
        row |= {"spread_pct": repeats.spread_pct, "usd_per_million_tokens": price and price / 3600 / row["tok_s"] * 1e6}
        row |= dict.fromkeys(("busy_pct", "kernels_per_step", "joules_per_token", "top_groups"))
        if case.name == "decode" and case.batch in (1, 64):
            row |= step_times.profile(run, llm, case.batch)
        rows.append(row)
    run.measured("decode at batch 1", 1 / times[one].median)
    said = {"prefill": "more than any of these", "decode": "more than any of these"}
    for phase in said:
        points = [(case.tokens, times[case].median) for case in cases if case.name == phase and case.tokens > 1]
        if turn := step_times.doubling([(1, times[one].median), *points]):
            run.measured(twice.format(phase), turn)
            said[phase] = f"{turn:,.0f}"
    first = rows[cases.index(one)]
    run.reading(
        f"At batch 1 decode reads {first['read_gb_s']:,.1f} GB/s, {first['ceiling_pct']:.0f} % of the copy bandwidth; "
        f"something is computed in {first['busy_pct']:.0f} % of the time. A step takes twice as long with "
        f"{said['decode']} sequences, or {said['prefill']} tokens of a prompt."
    )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------- kv_cache


@chapter.experiment
def kv_cache(run):
    """What does a token cost with and without a KV cache, as the text grows?"""
    by_hand.check(run.model.config)
    best, config, dtype = measured_ceilings(run), run.model.config, models.dtype(run.machine)
    contexts = run.size(full=[128, 512, 1024, 2000] if run.machine.gpus else [64, 256, 512, 1024], smoke=[64, 256])
    tokens, prompts = run.size(full=6, smoke=2), run.size(full=5, smoke=2)
    run.setting(repeats=run.repeats, warmups=1, tokens_timed=tokens, alternated=True, seed=0)
    ceiling = partial(cache_timing.ceiling_ms, best, config, dtype)
    growth = {}
    for cached, why in ((True, "the weights are read either way"), (False, "it computes all tokens again")):
        growth[cached] = f"{'with' if cached else 'without'} a cache, {contexts[-1]} tokens over {contexts[0]}"
        run.predict(growth[cached], ceiling(contexts[-1], cached) / ceiling(contexts[0], cached), "x", because=why)
    start_clean(run, "comparing answers")
    differing = cache_timing.disagreements(run.machine, prompts, tokens=16)
    run.setting(prompts_compared=prompts, prompts_differing=len(differing))
    run.step("loading the model in Transformers")
    network, _ = models.transformers_model(run.model, run.machine)
    contestants = cache_timing.contestants(network, config, contexts, tokens)
    run.step(f"{len(contestants)} ways to make {tokens} tokens in turn, a warm-up and {run.repeats} rounds")
    times = timing.alternate(contestants, run.repeats)
    rows = []
    for (program, cached, context), repeats in times.items():
        row = {"variant": f"{program}, {'cache' if cached else 'no cache'}", "context_tokens": context}
        row |= {"ms_per_token": repeats.median, "ceiling_ms": ceiling(context, cached)}
        row["x_shortest"] = repeats.median / times[program, cached, contexts[0]].median
        row["predicted_x"] = ceiling(context, cached) / ceiling(contexts[0], cached)
        rows.append(row | {"spread_pct": repeats.spread_pct})
    for cached, name in growth.items():
        of = {context: times["transformers", cached, context].median for context in contexts}
        run.measured(name, of[contexts[-1]] / of[contexts[0]])
    gain = times["transformers", False, contexts[-1]].median / times["transformers", True, contexts[-1]].median
    run.reading(
        f"After {contexts[-1]} tokens the cache makes Transformers {gain:.1f} times faster. "
        f"{prompts - len(differing)} of {prompts} prompts to course-lm got the same tokens in all four ways."
    )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------- padding


@chapter.experiment
def padding(run):
    """How much of a static batch's work is wasted on prompts and answers of unequal length?"""
    within(run, requests=(4, 1024))
    count = run.size(full=run.options.requests, smoke=8)
    sizes = [size for size in run.size(full=[4, 16, 64], smoke=[2, 8]) if size <= count]
    drawn = {"limit": 120, "scale": 0.06}  # short answers waste the same shares as those of the trace, sooner
    requests, others = lengths.sample(count, seed=0, **drawn), lengths.sample(4096, seed=1, **drawn)
    run.setting(requests=count, seed=0, **drawn, repeats=run.repeats, warmups=1, alternated=True)
    expected = static_batches.expected(others, sizes, count)
    largest = "arrival", sizes[-1]
    why = "the longest of a batch over the mean, in 4,096 other draws from the same distribution"
    run.predict(f"idle decode slots at batch {sizes[-1]}", expected[largest].idle_pct, "%", because=why)
    run.predict(f"padding of prompts at batch {sizes[-1]}", expected[largest].padding_pct, "%", because=why)
    start_clean(run, "loading the model in Transformers")
    network, _ = models.transformers_model(run.model, run.machine)
    static_batches.measured(network, requests[:4], 4)  # warm-up
    run.step(f"{count} requests in batches of {', '.join(map(str, sizes))}, {run.repeats} rounds")
    work = {}

    def seconds(order: str, size: int) -> float:
        work[order, size] = static_batches.measured(network, sorted(requests, key=static_batches.ORDERS[order]), size)
        return work[order, size].seconds

    times = timing.alternate({key: partial(seconds, *key) for key in expected}, run.repeats, warmups=0)
    rows = []
    for (order, size), repeats in times.items():
        done, guess = work[order, size], expected[order, size]
        row = {"order": order, "batch": size, "padding_pct": done.padding_pct, "idle_pct": done.idle_pct}
        row |= {"predicted_padding_pct": guess.padding_pct, "predicted_idle_pct": guess.idle_pct}
        # The first token of each answer comes from the prefill, the others from decode slots.
        row |= {"output_tok_s": (done.decode_tokens + count) / repeats.median}
        row |= {"slot_tok_s": (done.decode_slots + count) / repeats.median, "seconds": repeats.median}
        rows.append(row | {"spread_pct": repeats.spread_pct})
    run.measured(f"idle decode slots at batch {sizes[-1]}", work[largest].idle_pct)
    run.measured(f"padding of prompts at batch {sizes[-1]}", work[largest].padding_pct)
    run.reading(
        f"In batches of {sizes[-1]}, {work[largest].idle_pct:.0f} % of the decode slots are those of an answer that is "
        f"finished already, and {work[largest].padding_pct:.0f} % of the prompt tokens are padding."
    )
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------------- latency


@chapter.experiment
def latency(run):
    """What do users feel as requests arrive faster, up to more than the server can do?"""
    within(run, loads=(0.01, 3), seconds=(1, 600), slo_ttft_ms=(0.01, 1e6), slo_tpot_ms=(0.01, 1e6))
    slo = {"ttft_ms": run.options.slo_ttft_ms, "tpot_ms": run.options.slo_tpot_ms}
    loads = sorted(set(run.options.loads or run.size(full=[0.25, 0.5, 0.75, 0.9, 1.1, 1.3], smoke=[0.5, 1.3])))
    seconds, users = run.size(full=run.options.seconds, smoke=1.0), 256 if run.machine.gpus else 32
    input_tokens, most = 128, loads[-1]
    prompts, limit = throughput.random_prompts(4096, input_tokens), step_times.limit(run)
    # Drawn for each prompt: were unequal answers given in turn, some users would keep in step for ever.
    output_tokens = lengths.unequal(run.size(full=64, smoke=16), len(prompts))
    queued, again = f"P99 of TTFT at {most:g} of the capacity", "capacity by the later closed loops, median"
    slower = f"TPOT at {most:g} of the capacity, over that of the closed loop"
    rounds = {share: [] for share in loads}
    run.setting(input_tokens=input_tokens, output_tokens=f"{min(output_tokens)} to {max(output_tokens)}", users=users)
    run.setting(window_s=seconds, repeats=run.repeats)
    run.setting(slo_ttft_ms=slo["ttft_ms"], slo_tpot_ms=slo["tpot_ms"], latency_from="when it was due")
    # A closed loop finds the capacity, with twice the users that fit: there is a queue all the time, as in overload. It
    # is run several times, and again after each round, for a host may be faster at times.
    slots = users // 2
    engine = {"max_num_seqs": slots, "max_model_len": limit, "max_num_batched_tokens": limit}
    run.setting(max_num_seqs=slots)
    start_clean(run, "starting the server")
    serve = run.serve(enable_prefix_caching=False, **engine)
    with serve as server, load.clients(users, requests_per_s=3 * users) as clients:
        target = load.Target(server.url, run.model.name, prompts, output_tokens)
        run.step("warm-up")
        clients.closed_loop(target, users, seconds)  # as long as the others: the first one tends to be slower
        look = partial(latency_rounds.look, run, clients, target, users, seconds)
        looks = [look() for _ in range(run.repeats)]
        capacity = statistics.median(each.requests_per_s for each in looks)
        run.show("capacity", f"{capacity:,.1f} requests/s with {users} users, of whom half wait their turn")
        counts = {share: max(8, round(share * capacity * seconds)) for share in loads}
        if most > 1:
            alone_ms = clients.closed_loop(target, 1, seconds / 5).latencies_ms()["tpot_p50_ms"]
            because = f"simulated: the rounds' arrivals, {slots} places, steps of {alone_ms:.1f} ms for one and, "
            because += "with all places taken, as long as the capacity says"
            ttft_ms = latency_rounds.predicted_ttft_p99_ms(
                counts[most], most * capacity, output_tokens, slots, capacity, alone_ms / 1e3, run.repeats
            )
            run.predict(queued, ttft_ms, "ms", because=because)
            run.predict(slower, 1.0, "x", because="as many places taken, by the same requests")
        run.predict(again, capacity, "requests/s", because="the same server and the same load")
        for seed in range(run.repeats):
            for share in loads:
                rate = share * capacity
                run.step(f"round {seed + 1} of {run.repeats}: {rate:,.1f} requests/s, {share:.2f} of capacity")
                send = partial(clients.open_loop, target, counts[share], rate, seed)
                result, row = latency_rounds.measured(server, send, **slo)
                rounds[share].append(row)
                run.count(result.output_tokens)
            looks.append(look())
    rows = [
        {"load_share": share, "requests_per_s": share * capacity} | load.middle(results)
        for share, results in rounds.items()
    ]
    if most > 1:
        run.measured(queued, rows[-1]["ttft_p99_ms"])
        run.measured(slower, rows[-1]["tpot_p50_ms"] / statistics.median(each.tpot_ms for each in looks))
    rates = [each.requests_per_s for each in looks]
    run.measured(again, statistics.median(rates[run.repeats :]))
    said = ", ".join(f"{row['good_pct']:.0f} % at {row['load_share']:g}" for row in rows)
    run.reading(
        f"A closed loop gets {min(rates):,.1f} to {max(rates):,.1f} requests/s in {len(rates)} runs. Share of answers "
        f"within {slo['ttft_ms']:g} ms to the first token and {slo['tpot_ms']:g} ms to each other, by load: {said}."
    )
    return pd.DataFrame(rows)


# -------------------------------------------------------------------------------------------------- kv_bytes


@chapter.experiment
def kv_bytes(run):
    """How many bytes does a token take in the KV cache, and how many requests does that let in?"""
    within(run, kv_gib=(0.01, 1e6))
    shapes = run.size(full=kv_allocation.SHOWN, smoke=dict(list(kv_allocation.SHOWN.items())[:2]))
    run.setting(kv_gib=run.options.kv_gib, dtype="bfloat16", tokens_each=4096)
    ratio = "KV bytes per token, llama-2-7b over llama-3-8b"
    run.predict(ratio, 32 / 8, "x", because="as many layers and as wide heads, with 32 KV heads against 8")
    start_clean(run, "starting engines")
    rows = []
    with kv_allocation.engines_in_this_process():
        for name, config in shapes.items():
            predicted = estimator.kv_bytes_per_token(config)
            allocated, how = kv_allocation.bytes_per_token(run, name, config)
            tokens = int(run.options.kv_gib * GIB // predicted)
            row = {"model_shape": name, "attention": kv_allocation.attention_of(config), "predicted_bytes": predicted}
            row |= {"allocated_bytes": allocated, "difference_bytes": allocated and allocated - predicted}
            rows.append(row | {"tokens_fit": tokens, "batch_fits": tokens // 4096, "how": how})
    table = pd.DataFrame(rows).convert_dtypes()  # bytes stay whole numbers beside one that is missing
    if table.allocated_bytes[:2].notna().all():
        run.measured(ratio, table.allocated_bytes[0] / table.allocated_bytes[1])
    least, most = table.loc[table.predicted_bytes.idxmin()], table.loc[table.predicted_bytes.idxmax()]
    run.reading(
        f"{(table.difference_bytes == 0).sum()} of {len(table)} shapes take exactly the bytes that were predicted. "
        f"{run.options.kv_gib:g} GiB hold {most.batch_fits} requests of 4,096 tokens with {most.model_shape} and "
        f"{least.batch_fits} with {least.model_shape}."
    )
    return table


chapter.figure(name="step_time", experiment="prefill_and_decode", x="step_tokens", y="step_ms", by="phase",
               log_x=True, log_y=True, title="Time of a step by the tokens in it")  # fmt: skip
chapter.figure(name="token_time", experiment="kv_cache", x="context_tokens", y="ms_per_token", by="variant",
               log_x=True, log_y=True, title="Time per token with and without a KV cache")  # fmt: skip
chapter.figure(name="ttft_by_load", experiment="latency", x="load_share", y="ttft_p99_ms",
               log_y=True, title="99th percentile of TTFT by arrival rate")  # fmt: skip

if __name__ == "__main__":
    chapter.main()
