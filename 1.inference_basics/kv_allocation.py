"""What vLLM really allocates for the KV cache of a published shape, without its weights.

The KV cache is decided by the layers, the KV heads and their width. So an engine with random weights gets all of those
as published, and everything else as small as it goes: hidden size, MLP, vocabulary, query heads. Then the cache of a
model with 671 billion parameters can be had on any machine, tensor by tensor as the real one.
"""

import json
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from common import estimator, models
from common.problems import first_line
from common.run import Run
from common.shapes import KV_SHAPES, SHAPES

SHOWN = {name: SHAPES[name] for name in ("llama-2-7b", "llama-3-8b", "llama-3-70b", "qwen2.5-7b", "qwen2.5-72b")}
SHOWN |= KV_SHAPES
KV_BYTES = 2**29  # what each engine may take for its KV cache
HIDDEN = 256  # hidden size of the narrow models


def narrow(config: dict) -> dict:
    """The same KV cache with few weights; layers, KV heads, head size and latent rank stay as published."""
    small = dict(config, vocab_size=10_240, intermediate_size=HIDDEN)  # the vocabulary of course-lm's tokenizer
    kv_heads, width = estimator.kv_heads(config), estimator.head_dim(config)
    if config.get("kv_lora_rank"):
        # Every layer dense instead of a mixture of experts; 16 heads share the latent vector as well as 128 do.
        small |= {"num_attention_heads": 16, "num_key_value_heads": 16, "hidden_size": HIDDEN}
        small |= {"first_k_dense_replace": config["num_hidden_layers"], "n_routed_experts": 8}
        small |= {"moe_intermediate_size": HIDDEN, "q_lora_rank": config["q_lora_rank"] and 64}
    elif config["model_type"] in ("qwen2", "falcon"):  # their heads are as wide as hidden size over heads
        small |= {"num_attention_heads": kv_heads, "hidden_size": kv_heads * width}
    else:
        small |= {"head_dim": width, "hidden_size": HIDDEN}
    if "vocab_size_per_layer_input" in config:
        small["vocab_size_per_layer_input"] = small["vocab_size"]
    return small


@contextmanager
def engines_in_this_process() -> Iterator[None]:
    """Engines that start in this block run in this process, where their tensors can be looked at."""
    name = "VLLM_ENABLE_V1_MULTIPROCESSING"
    before = os.environ.get(name)
    os.environ[name] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _allocated_bytes(worker) -> int:
    """Bytes of the memory behind a worker's KV cache, each piece counted once however many layers look at it."""
    tensors = []
    for cache in worker.model_runner.kv_caches:
        tensors += cache if isinstance(cache, (list, tuple)) else [cache]
    pieces = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(pieces.values())


def bytes_per_token(run: Run, shape: str, config: dict) -> tuple[int | float | None, str]:
    """(bytes of KV cache that vLLM allocated for a shape, over the tokens that it says fit in them; how it was found).

    None, and the error, where this machine could not start the engine: the other shapes are still worth seeing.
    """
    folder = run.logs / "shapes" / shape
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(narrow(config)))
    options: dict[str, object] = {"max_model_len": 256, "max_num_batched_tokens": 256, "max_num_seqs": 4}
    options |= {"gpu_memory_utilization": 0.3, "kv_cache_memory_bytes": KV_BYTES, "enforce_eager": True}
    if "sliding_window" in config:
        # vLLM would let layers with a window share memory by turns. Then a token has no fixed number of bytes.
        options["disable_hybrid_kv_cache_manager"] = True
    try:
        llm = run.engine(models.Model(shape, str(folder), "random"), tokenizer=str(models.COURSE_LM), **options)
    except Exception as error:  # whatever an engine may raise for a shape that this hardware has no kernel for
        traceback.print_exception(error)  # stderr is the log
        return None, first_line(error, 60)
    cache = llm.llm_engine.vllm_config.cache_config
    tokens = cache.num_gpu_blocks * cache.block_size
    whole, rest = divmod(llm.collective_rpc(_allocated_bytes)[0], tokens)
    return whole + rest / tokens if rest else whole, "no windows" if "sliding_window" in config else "engine"


def attention_of(config: dict) -> str:
    """MHA, GQA, MQA or MLA; "shared" where layers use those of another."""
    kv_heads = estimator.kv_heads(config)
    if config.get("kv_lora_rank"):
        return "MLA"
    kind = "MQA" if kv_heads == 1 else "MHA" if kv_heads == config["num_attention_heads"] else "GQA"
    return f"{kind}, shared" if config.get("num_kv_shared_layers") else kind
