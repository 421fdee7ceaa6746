"""What is commonly said about paging, each beside what this chapter measures for it."""

import statistics

from kv_memory import CONTEXT, Paged, contiguous, tokens_kept

from common import estimator, lengths, shapes

# Qwen2-7B has the layers and KV heads of Qwen2.5-7B: 28 layers, 4 heads of 128.
MODELS = {"Llama-2-7B": shapes.SHAPES["llama-2-7b"], "Qwen2-7B": shapes.SHAPES["qwen2.5-7b"]}
GROUP = 8


def blocks_held(tokens: list[int], config: dict, block_size: int = 16) -> list[int]:
    """Slots in the blocks that vLLM's block manager gives to requests with so many tokens in the cache, each."""
    manager = Paged(sum(tokens) + (len(tokens) + 1) * block_size, block_size, config, CONTEXT)
    held = []
    for number, count in enumerate(tokens):
        if not manager.admit(number, lengths.Lengths(count, 1), count):
            raise ValueError(f"no blocks for {count} tokens")
        held.append(manager.reserved(number))
    return held


def eight_requests(requests: list[lengths.Lengths], config: dict) -> tuple[float, float, float]:
    """GB for eight requests when they end: reserved in one piece, in blocks, with tokens; means of all groups."""
    token_bytes = estimator.kv_bytes_per_token(config)
    groups = [requests[start : start + GROUP] for start in range(0, len(requests) - GROUP + 1, GROUP)]
    reserved, held, used = [], [], []
    for group in groups:
        piece = contiguous(GROUP * CONTEXT)["maximum"]
        for number, request in enumerate(group):
            piece.admit(number, request, request.input_tokens)
        reserved.append(sum(piece.reserved(number) for number in range(len(group))))
        kept = [tokens_kept(request) for request in group]
        held.append(sum(blocks_held(kept, config)))
        used.append(sum(kept))
    return tuple(statistics.mean(slots) * token_bytes / 1e9 for slots in (reserved, held, used))


def table(fragmentation: list[dict], throughput: list[dict], count: int) -> list[dict]:
    """A row for each claim, from the rows of those two experiments and from the block manager, for `count` requests."""
    found = {row["allocation"]: row for row in fragmentation}
    blocks, mix = found["blocks_of_16"], {row["mix"]: row for row in throughput if row["x_tok_s"] != 1}
    requests = lengths.sample(count, limit=CONTEXT)
    rows = []

    def add(row: str, said: str, measured: float, unit: str, how: str) -> None:
        rows.append({"row": row, "said": said, "measured": measured, "unit": unit, "how": how})

    wasted = found["maximum"]["kv_wasted_pct"]
    add("contiguous_wasted", "half or more", wasted, "%", "memory without a token; 2,048 slots for each request")
    add("paged_used", "80 to 90 %", 100 - blocks["kv_wasted_pct"], "%", "memory with tokens; blocks of 16")
    ends = blocks["kv_later_pct"] + blocks["kv_never_pct"]
    add("paged_wasted", "under 4 %", ends, "%", "memory in the empty ends of last blocks of 16")

    add("eight_at_1_kb", "16 GB", GROUP * CONTEXT * 1000 / 1e9, "GB", "8 times 2,048 tokens at 1 KB, as in the claim")
    for name, config in MODELS.items():
        reserved, held, used = eight_requests(requests, config)
        short = name.lower().replace("-", "_")
        token_kb = estimator.kv_bytes_per_token(config) / 1024
        add(f"eight_reserved_{short}", "16 GB", reserved, "GB", f"8 times 2,048 tokens, {token_kb:.0f} KiB each")
        add(f"eight_needed_{short}", "1.6 GB", held, "GB", "in blocks of 16 when they end; mean of all groups of 8")
        add(f"eight_saved_{short}", "91 %", 100 * (1 - held / reserved), "%", "1 - needed / reserved")
    add("eight_wasted", "48 % of 30 GB", 100 * (1 - used / reserved), "%", "of what is reserved, when all 8 end")

    (held,) = blocks_held([300], MODELS["Llama-2-7B"])
    add("answer_of_300", "4 tokens", held - 300, "tokens", "300 tokens in blocks of 16")
    with_prompt = lengths.Lengths(100, 300)
    (held,) = blocks_held([tokens_kept(with_prompt)], MODELS["Llama-2-7B"])
    how = "an answer of 300 to a prompt of 100, of which 399 have K and V"
    add("answer_of_300_to_100", "4 tokens", held - tokens_kept(with_prompt), "tokens", how)
    kept = [tokens_kept(request) for request in requests]
    empty = [slots - tokens for slots, tokens in zip(blocks_held(kept, MODELS["Llama-2-7B"]), kept, strict=True)]
    add("mean_request", "4 tokens", statistics.mean(empty), "tokens", f"mean of {count} requests of the mix")

    for name, row in mix.items():
        add(f"batch_{name}", "8 becomes 50", row["requests_at_once"], "requests", f"{name} mix in the memory of 8")
        add(f"speed_up_{name}", "10 to 120, 12 x", row["x_tok_s"], "x", f"tokens/s, {name} mix on this machine")
    return rows
