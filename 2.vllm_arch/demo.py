"""2.vllm_arch: how does vLLM keep the KV cache, and what are its parts?

The question: one step reads the weights for all requests that are in memory. How many can be in memory at once?

Background. Each token of a request leaves a key and a value in every layer, the KV cache. A server that keeps it in one
piece must reserve that piece before it knows how long the answer will be, and most of the piece stays empty. vLLM cuts
the memory into blocks of some tokens, hands them out one at a time, and finds them by a block table for each request:

  block table       logical block 0, 1, 2 … of a request -> number of a physical block
  reference count   how many requests have a block in their table; a common prefix is kept once
  waste             the empty end of the last block of each request

This demo drives vLLM's own block manager, looks into a running engine, and takes a server apart into processes and its
weights into tensors. paged_attention.py beside it is the whole idea in a hundred lines. To copy:

  make demo CH=2                                       all experiments
  make demo CH=2 ARGS='--only fragmentation'           how many requests fit, in one piece and in blocks
  make demo CH=2 ARGS='--only block_table --present'   live block tables, step by step
"""

import os
import tempfile
from pathlib import Path

import claims as said
import httpx
import kv_memory
import live_engine
import pandas as pd
import process_tree
import same_tokens
import timed_loading
from kv_memory import CONTEXT

from common import estimator, lengths, models, prices, shapes
from common.chapter import Chapter
from common.hardware import GIB
from common.problems import Problem

chapter = Chapter(__file__, speed=True)
chapter.option("--requests", type=int, help="requests in the mix of fragmentation (400)")
chapter.option("--kv-gb", type=float, default=16.0, help="KV memory of fragmentation, in GB (16)")
chapter.option("--block-size", type=int, help="tokens in a block of the engines (16, on a CPU 32)")
chapter.option("--kv-blocks", type=int, help="blocks in the KV cache of the engines (8 requests of full length)")

RESERVED = 8  # requests of full length that the engines' KV cache holds: the batch with which the claim begins
MOST_AT_ONCE = 256  # more requests than the blocks of that cache let in
LLAMA_2 = shapes.SHAPES["llama-2-7b"]


def block_size(run) -> int:
    """Tokens in a block. Raises Problem for a size that attention can't take on this machine."""
    multiple = 16 if run.machine.gpus else 32
    size = multiple if run.options.block_size is None else run.options.block_size
    if size < 1 or size % multiple:
        raise Problem(
            f"Attention on this machine takes blocks of {multiple} tokens or a multiple of that, not of {size}.",
            f"Take --block-size {multiple * max(1, round(size / multiple))}.",
            f"vLLM would refuse it later: 'No common block size for {size}'.",
        )
    return size


def engine_options(run) -> dict[str, object]:
    """Options of the engines here: a small KV cache, and shorter requests where there is no GPU."""
    size, context = block_size(run), CONTEXT if run.machine.gpus else 512
    blocks = run.options.kv_blocks or RESERVED * context // size + 1  # the first one vLLM keeps as its null block
    options = {"block_size": size, "num_gpu_blocks_override": blocks, "max_model_len": context}
    if not run.machine.gpus:
        return options | {"async_scheduling": False}  # said so that all engines here are the same one
    if fit := models.preflight(run.model, run.machine, blocks * size):
        # What this needs, not nearly all of the GPU; 8 GiB are for CUDA graphs and large steps.
        share = (fit.needed + 8 * GIB) / run.machine.gpus[0].total_bytes
        options["gpu_memory_utilization"] = round(min(0.9, share), 2)
    # The same for engine and server, so that what torch.compile made for one serves the other too.
    return options | {"max_num_seqs": MOST_AT_ONCE, "max_num_batched_tokens": 8192}


def engine(run, **options: object):
    """An engine in this process, where its scheduler and its block manager can be looked at."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    return run.engine(**engine_options(run) | options)


def course_lm_engine(run, **options: object):
    """The same with course-lm, and without scheduling ahead: between two steps all is as the last one left it."""
    run.model = models.resolve("course-lm")
    return engine(run, enforce_eager=True, async_scheduling=False, **options)


# --------------------------------------------------------------------------------------------- fragmentation


@chapter.experiment
def fragmentation(run):
    """How much of the KV memory holds tokens, if each request gets one piece, and if it gets blocks?"""
    count = run.size(full=400, smoke=120) if run.options.requests is None else run.options.requests
    token_bytes = estimator.kv_bytes_per_token(LLAMA_2)
    slots = int(run.options.kv_gb * 1e9 / token_bytes)
    if count < 1:
        raise Problem(f"A mix of {count} requests leaves nothing to serve.", "Take --requests 1 or more.")
    if slots < CONTEXT + 512:  # one request, and a null block of any size
        raise Problem(
            f"{run.options.kv_gb} GB of KV cache hold {max(0, slots):,} tokens; one request may have {CONTEXT:,}.",
            f"Take --kv-gb {(CONTEXT + 512) * token_bytes / 1e9:.1f} or more.",
        )
    requests = lengths.sample(count, limit=CONTEXT)
    run.setting(requests=count, kv_gb=run.options.kv_gb, kv_shape="llama-2-7b", kv_bytes_per_token=token_bytes)
    run.setting(**kv_memory.mean_lengths(requests), max_model_len=CONTEXT, seed=0)
    kept = kv_memory.mean_tokens_kept(requests)
    because = f"a running request keeps {kept:,.0f} tokens on average"
    pieces = slots // CONTEXT
    run.predict("wasted, maximum", 100 * (1 - pieces * kept / slots), "%", f"{because}, in pieces of {CONTEXT:,}")
    run.predict("wasted in blocks of 16", 100 * 7.5 / (kept + 7.5), "%", f"{because}, and half a block is empty")
    run.predict("at once, blocks of 16", slots / (kept + 7.5), "requests", f"the same, in {slots:,} slots")

    sizes = run.size(full=(8, 16, 32, 64, 128, 256), smoke=(16, 128))
    rows = []
    for allocation, memory in kv_memory.allocations(slots, LLAMA_2, sizes).items():
        run.step(f"{count} requests, {allocation}")
        rows.append({"allocation": allocation} | kv_memory.serve(memory, requests).row(slots, token_bytes))
    table = pd.DataFrame(rows)
    table.insert(2, "x_requests", table.requests_at_once / table.requests_at_once[0])
    table["published_wasted_pct"] = table.allocation.map(kv_memory.PUBLISHED_WASTED_PCT)
    wasted, at_once = (table.set_index("allocation")[column] for column in ("kv_wasted_pct", "requests_at_once"))
    ends = (table.kv_later_pct + table.kv_never_pct)[table.allocation == "blocks_of_16"].item()
    run.measured("wasted, maximum", wasted["maximum"])
    run.measured("wasted in blocks of 16", ends)
    run.measured("at once, blocks of 16", at_once["blocks_of_16"])
    run.reading(
        f"With the maximum reserved {wasted['maximum']:.0f} % of the memory holds no token, with lengths known in "
        f"advance still {wasted['exact_length']:.0f} %, with blocks of 16 tokens {wasted['blocks_of_16']:.1f} %: "
        f"{at_once['blocks_of_16'] / at_once['maximum']:.1f} times as many requests at once."
    )
    return table


# ----------------------------------------------------------------------------------------------- block_table


@chapter.experiment
def block_table(run):
    """Which physical blocks do live requests have, and which of them do they share?"""
    llm, size = course_lm_engine(run), block_size(run)
    llm.reset_prefix_cache()
    ids = live_engine.prompt_ids(llm.get_tokenizer())
    run.setting(**engine_options(run), prompt_tokens=", ".join(f"{name} {len(ids[name])}" for name in ids))
    because = f"full blocks of {size} tokens once, however many prompts begin with them; an end for each of 6 samples"
    run.predict("blocks of all prompts", live_engine.blocks_of(ids, size), "blocks", because)
    stage, rows = live_engine.Stage(llm), []
    for moment, found, drawing in stage.play(ids):
        run.show(moment, drawing)
        rows += found
    run.count(stage.output_tokens)
    run.measured("blocks of all prompts", rows[0]["blocks_in_use"])
    before, again = (set(row["block_table"].split()) for row in (rows[1], rows[-1]))
    run.reading(
        f"Shared blocks are full ones. When all have ended every block is free, and {rows[-2]['blocks_cached_free']} "
        f"keep what they held: B asks again and has {len(before & again)} of its {len(before)} blocks back at once."
    )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------------------ throughput


@chapter.experiment
def throughput(run):
    """What do more requests at once buy, from the same KV memory?"""
    llm, options, gpu = engine(run), engine_options(run), bool(run.machine.gpus)
    slots, context = (options["num_gpu_blocks_override"] - 1) * options["block_size"], options["max_model_len"]
    holds = max(1, slots // context)
    run.setting(kv_slots=slots, **options, repeats=run.repeats, warmups=1, seed=0)
    mixes = {
        "chat_trace": lengths.sample(run.size(64, 12), limit=context, scale=1.0 if gpu else 0.25),
        "short": [lengths.Lengths(100, 200) if gpu else lengths.Lengths(25, 50)] * run.size(96, 12),
    }
    rows = []
    for mix, requests in mixes.items():
        reserved, paged = kv_memory.steps(requests, slots, options["block_size"], run.model.config, context)
        run.predict(f"speed-up, {mix}", reserved / paged, "x", f"{paged:,} steps instead of {reserved:,}, equally long")
        found = live_engine.compare(llm, requests, (holds, MOST_AT_ONCE), run.repeats, run.step)
        run.count(sum(request.output_tokens for request in requests) * 2 * run.repeats)
        run.measured(f"speed-up, {mix}", found[1]["x_tok_s"])
        rows += [{"mix": mix} | row for row in found]
    table = pd.DataFrame(rows)
    table.insert(3, "kv_used_pct", 100 * table.pop("tokens_kept") / slots)
    price, source = prices.per_hour(run.machine, run.options.gpu_price)
    run.setting(price_usd_per_hour=price, price_source=source)
    table["usd_per_million_tokens"] = None if price is None else price / 3600 / table.output_tok_s * 1e6
    chat, short = table.iloc[1], table.iloc[3]
    run.reading(
        f"Where {holds} reserved requests fit, blocks hold {chat.requests_at_once:.0f} of the chat trace, or "
        f"{short.requests_at_once:.0f} short ones: {chat.x_tok_s:.1f} and {short.x_tok_s:.1f} times the tokens/s."
    )
    return table


# ------------------------------------------------------------------------------------------------- processes


@chapter.experiment
def processes(run):
    """Which processes is a server made of, and what does each hold?"""
    engine(run)
    in_process = process_tree.examine(os.getpid())[0] | {"process": "this_demo", "holds": "all of it"}
    models.close_engine()
    import_mb = process_tree.import_bytes() / 1e6
    others = 1 if run.machine.gpus else 2  # on one GPU the worker is part of the engine core's process
    because = f"one process with the model, as large as this one was, and {others} of {import_mb:.0f} MB, a bare import"
    run.predict("memory of the server", in_process["memory_mb"] + others * import_mb, "MB", because)
    options, before = engine_options(run), process_tree.gpu_used_bytes()
    fit = models.preflight(run.model, run.machine, options["num_gpu_blocks_override"] * options["block_size"])
    if before is not None and fit:
        run.predict("GPU memory of the server", (fit.weights + fit.kv_cache) / 1e9, "GB", "weights and KV cache alone")
    with run.serve(environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}, **options) as server:
        body = {"model": run.model.name, "prompt": "Once upon a time", "max_tokens": 32, "ignore_eos": True}
        answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=60, trust_env=False).raise_for_status()
        run.count(answer.json()["usage"]["completion_tokens"])
        rows = process_tree.examine(server.process.pid)
        run.setting(**options, ready_s=server.ready_s)
        if before is not None and fit:
            run.measured("GPU memory of the server", (process_tree.gpu_used_bytes() - before) / 1e9)
    memory_mb = sum(row["memory_mb"] for row in rows)
    run.measured("memory of the server", memory_mb)
    run.show("the way of a request", process_tree.PATH)
    run.reading(
        f"The {len(rows)} processes of the server take {memory_mb:,.0f} MB, the same engine in this one process "
        f"{in_process['memory_mb']:,.0f} MB: each imports PyTorch and vLLM for itself."
    )
    return pd.DataFrame([*rows, in_process])


# ---------------------------------------------------------------------------------------- weights, load_time


@chapter.experiment
def weights(run):
    """Which tensors of the checkpoint become which parameters of the engine?"""
    course_lm_engine(run)
    folder, config, dtype = Path(run.model.path), run.model.config, models.dtype(run.machine)
    tensors, layers = len(timed_loading.tensor_names(folder)), config["num_hidden_layers"]
    because = f"{tensors} tensors; in each of {layers} layers three become one (Q, K, V) and two become one (gate, up)"
    run.predict("parameters of the engine", tensors - 3 * layers, "tensors", because)
    because = f"{estimator.parameters(config):,} numbers by the formula, in {dtype}"
    run.predict("memory of the weights", estimator.weight_bytes(config, dtype) / 1e6, "MB", because)
    loading = timed_loading.load(folder, dtype, compare=True)
    run.measured("parameters of the engine", len(loading.shapes))
    run.measured("memory of the weights", loading.parameter_bytes / 1e6)
    repacked = sum(loading.shapes[name] != loading.shapes_after[name] for name in loading.shapes)
    run.reading(
        f"{tensors} tensors become {len(loading.shapes)} parameters. {sum(loading.equal.values())} of them hold the "
        f"same numbers, and {repacked} are then repacked for the kernels of this machine."
    )
    return pd.DataFrame(timed_loading.fused_rows(loading))


@chapter.experiment
def load_time(run):
    """Where do the seconds of loading go, from the disk and from the page cache?"""
    course_lm_engine(run)  # what loads needs an engine around it
    run.setting(repeats=run.repeats, warmups="1, of course-lm")
    folders, rows = {"course_lm": Path(run.model.path)}, []
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as written:
        if not run.smoke:
            shape = timed_loading.shape_to_load(Path(written), run.machine)
            run.step(f"writing a checkpoint of {shape}, random weights")
            folders[shape] = Path(written)
            device = "cuda" if run.machine.gpus else "cpu"
            timed_loading.write_checkpoint(Path(models.resolve(f"shape:{shape}").path), Path(written), device)
        for name, folder in folders.items():
            because = f"what {timed_loading.weight_bytes(folder) / 1e9:.3g} GB take here, read from front to back"
            run.predict(f"opening and reading {name}", timed_loading.read_seconds(folder), "s", because)
            rows += timed_loading.compare_loads(name, folder, models.dtype(run.machine), run.repeats, run.step)
            run.measured(f"opening and reading {name}", rows[-2]["open_s"] + rows[-2]["read_s"])
    sentences = [
        f"{row['loaded']} takes {row['load_s']:.2g} s, and the largest part is {max(timed_loading.PARTS, key=row.get)}"
        for row in rows[-2:]
    ]
    run.reading("; ".join(sentences) + ".")
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------------------------- same_answers


@chapter.experiment
def same_answers(run):
    """Do vLLM, Transformers and decoders written by hand give the same greedy tokens?"""
    half = models.dtype(run.machine)
    # On a GPU vLLM's attention in float32 is a Triton kernel, which would multiply with 10 bits if not told otherwise.
    os.environ["TRITON_F32_DEFAULT"] = "ieee"
    llm = course_lm_engine(run, dtype=half)
    questions = same_tokens.course_prompts(llm.get_tokenizer(), run.size(50, 11))
    run.setting(prompts=len(questions), prompt_forms=len(same_tokens.SKILLS) + 1, max_tokens=same_tokens.MAX_TOKENS)
    because = "one function; sums in another order differ in the seventh digit, which hardly ever changes the largest"
    run.predict("same answers in float32", 100, "%", because)
    answers = {(half, "vllm"): same_tokens.of_vllm(llm, questions)}
    answers["float32", "vllm"] = same_tokens.of_vllm(course_lm_engine(run, dtype="float32"), questions)
    models.close_engine()
    run.count(sum(len(answer) for given in answers.values() for answer in given))
    run.step("Transformers and the decoders written by hand")
    network, others = same_tokens.without_vllm(run.model, run.machine, questions, half)
    table = pd.DataFrame(same_tokens.rows(network, questions, answers | others, half))
    equal, in_half = (table[table.dtype == dtype].same_pct.min() for dtype in ("float32", half))
    run.measured("same answers in float32", equal)
    sentence = (
        f"All give the same answers to {equal:.0f} % of the prompts in float32, to {in_half:.0f} % or more in {half}."
    )
    if table.largest_lead.notna().any():
        sentence += (
            f" Where they part the best token leads by {table.largest_lead.max():.2g} or less, "
            f"{table.lead_steps.max():.2g} of the step between two {half} numbers there; usually it leads by "
            f"{table.usual_lead[0]:.2g}."
        )
    run.reading(sentence)
    return table


# ---------------------------------------------------------------------------------------------------- claims


@chapter.experiment
def claims(run):
    """What is said about paging, and what does this chapter measure?"""
    rows = said.table(run.rows_of("fragmentation"), run.rows_of("throughput"), run.size(400, 120))
    of = {row["row"]: row["measured"] for row in rows}
    run.reading(
        f"Pieces waste {of['contiguous_wasted']:.0f} %, as said; blocks use {of['paged_used']:.0f} %, more than said. "
        f"Gigabytes depend on the model: eight times 2,048 tokens are {of['eight_reserved_llama_2_7b']:.2g} GB with "
        f"Llama-2-7B and {of['eight_reserved_qwen2_7b']:.2g} GB with Qwen2-7B."
    )
    return pd.DataFrame(rows)


chapter.figure(
    name="wasted", experiment="fragmentation", x="allocation", y="kv_wasted_pct", kind="bar",
    title="KV memory that holds no token while requests wait",
)  # fmt: skip
chapter.figure(
    name="processes", experiment="processes", x="process", y="memory_mb", kind="bar",
    title="Main memory of each process",
)  # fmt: skip
chapter.figure(
    name="load_time", experiment="load_time", x="loaded", kind="bar",
    y=("build_s", "open_s", "read_s", "copy_s", "post_process_s"), title="Loading, by part",
)  # fmt: skip

if __name__ == "__main__":
    chapter.main()
