"""2. A preflight check"""

from common import estimator
from common.check import expect
from common.hardware import GIB
from common.models import resolve
from common.shapes import SHAPES


def small(**changes: object) -> dict:
    """A config small enough for a person to add up: 24,992 weights as llama, and 64 numbers of KV cache a token."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "vocab_size": 100,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1000,
        "tie_word_embeddings": False,
    }
    return config | changes


def test_weights_of_a_small_model(exercises):
    embedding, attention, mlp, norms = 3200, 32 * 32 * 2 + 32 * 16 * 2, 3 * 32 * 64, 2 * 32
    total = 2 * embedding + 2 * (attention + mlp + norms) + 32
    config = small()
    expect(
        f"weight_bytes in bfloat16 of {config}",
        exercises.weight_bytes(config, "bfloat16"),
        2 * total,
        f"2 bytes × (2 × {embedding} embedding and head + 2 layers × ({attention} attention + {mlp} MLP + {norms} "
        "norms) + 32 last norm)",
        {
            "the output head is missing": 2 * (total - embedding),
            "these are weights, not bytes": total,
            "the last norm is missing": 2 * (total - 32),
            "the norms of the layers are missing": 2 * (total - 2 * norms),
            "the MLP has two matrices": 2 * (total - 2 * 32 * 64),
            "K and V are as wide as Q; they have fewer heads": 2 * (total + 2 * 2 * 32 * 16),
            "the output of attention is missing": 2 * (total - 2 * 32 * 32),
            "there is one layer": 2 * (total - attention - mlp - norms),
        },
    )
    for change, difference, what in (
        ({"tie_word_embeddings": True}, -3200, "with tied embeddings, 3,200 weights fewer"),
        ({"model_type": "qwen2"}, 2 * 64, "as qwen2, with 32 + 16 + 16 biases a layer more"),
        ({"model_type": "qwen3"}, 2 * 16, "as qwen3, with two norms of 8 a layer more"),
        ({"head_dim": 16}, 2 * (attention), "with head_dim 16 instead of 32 / 4, attention twice as large"),
    ):
        got = exercises.weight_bytes(small(**change), "bfloat16")
        expect(f"weight_bytes in bfloat16 of {config} {what},", got, 2 * (total + difference))
    expect(f"weight_bytes in float32 of {config}", exercises.weight_bytes(config, "float32"), 4 * total)


def test_weights_of_two_published_models(exercises):
    for shape, weights in (("qwen2.5-7b", 7_615_616_512), ("llama-3-8b", 8_030_261_248)):
        got = exercises.weight_bytes(SHAPES[shape], "bfloat16")
        expect(f"weight_bytes of {shape} in bfloat16", got, 2 * weights, f"2 bytes × {weights:,} weights")


def test_kv_cache_of_two_published_models(exercises):
    for shape, kv_bytes, sharing in (("qwen2.5-7b", 57_344, 7), ("llama-3-8b", 131_072, 4)):
        expect(
            f"kv_bytes_per_token of {shape} in bfloat16",
            exercises.kv_bytes_per_token(SHAPES[shape], "bfloat16"),
            kv_bytes,
            "2 × layers × KV heads × head_dim × 2 bytes",
            {
                "only the keys, or only the values, are counted": kv_bytes / 2,
                "these are numbers, not bytes": kv_bytes / 2,
                "every attention head has keys and values of its own": kv_bytes * sharing,
            },
        )


def test_every_shape_of_the_course(exercises):
    configs = SHAPES | {"course-lm": resolve("course-lm").config}
    for name, config in configs.items():
        for dtype in ("bfloat16", "float32"):
            expect(
                f"weight_bytes of {name} in {dtype}",
                exercises.weight_bytes(config, dtype),
                estimator.weight_bytes(config, dtype),
                "so says common/estimator.py",
            )
            expect(
                f"kv_bytes_per_token of {name} in {dtype}",
                exercises.kv_bytes_per_token(config, dtype),
                estimator.kv_bytes_per_token(config, dtype),
                "so says common/estimator.py",
            )


def verdict_of(exercises, *arguments, **options):
    verdict = exercises.preflight(*arguments, **options)
    assert isinstance(verdict, exercises.Verdict), f"preflight should return a Verdict; yours returns {verdict!r}."
    return verdict


def test_one_block_more_or_less(exercises):
    config = small()
    weights, block = estimator.weight_bytes(config), 16 * estimator.kv_bytes_per_token(config)
    for spare, asked, fits, longest, why in (
        (11 * block, 160, True, 160, "eleven blocks of 16 tokens are left, one of them vLLM's own"),
        (11 * block, 161, False, 160, "ten blocks of 16 tokens are left beside vLLM's own, and 161 tokens need eleven"),
        (11 * block - 1, 160, False, 144, "one byte is missing for the last block, and half a block holds nothing"),
        (11 * block, 16, True, 160, "ten blocks are left beside vLLM's own, whatever is asked for"),
        (2 * block - 1, 1, False, 0, "the only block is vLLM's own"),
        (block - 1, 1, False, 0, "not even one block is left"),
        (-5 * block, 1, False, 0, "the weights alone do not fit"),
        (1000 * block, 1000, True, 1000, "the memory is there and the model was trained for 1,000 positions"),
        (1000 * block, 1001, False, 1000, "the model was trained for 1,000 positions"),
    ):
        available = weights + 5000 + spare
        verdict = verdict_of(exercises, config, available, asked, overhead_bytes=5000)
        call = (
            f"preflight of a model with {weights} bytes of weights and {block} bytes a block, {available} bytes "
            f"available, 5,000 of overhead, max_model_len {asked}: "
        )
        mistakes = {
            "vLLM's own block is counted": min(spare // block * 16, 1000),
            "overhead_bytes is not taken off": min(((available - weights) // block - 1) * 16, 1000),
            "blocks are not whole": min(spare // (block // 16) - 16, 1000),
            "max_position_embeddings is no limit in yours": (spare // block - 1) * 16,
        }
        expect(call + "longest", verdict.longest, longest, why, mistakes)
        expect(call + "fits", verdict.fits, fits, why)


def test_what_it_says(exercises):
    config = SHAPES["qwen2.5-14b"]
    verdict = verdict_of(exercises, config, 22 * GIB, 4096)
    for number in ("27.5", "22.0"):
        assert number in verdict.message, (
            f"A 14B model in bfloat16 has 27.5 GiB of weights. With 22.0 GiB available the message should give both "
            f'figures. Yours is "{verdict.message}".'
        )
    config = SHAPES["llama-3-8b"]
    verdict = verdict_of(exercises, config, 80 * GIB, 10_000)
    assert "8192" in verdict.message, (
        f"Llama 3 was trained for 8192 positions, and that is what stands against max_model_len 10000. The message "
        f'should say 8192. Yours is "{verdict.message}".'
    )
    verdict = verdict_of(exercises, config, int(17.5 * GIB), 8192)
    expect("longest for llama-3-8b with 17.5 GiB available", verdict.longest, 4416)
    assert "4416" in verdict.message, (
        f'The message should name the max_model_len that would fit, 4416. Yours is "{verdict.message}".'
    )
    verdict = verdict_of(exercises, config, 24 * GIB, 8192)
    expect("The message where it fits", verdict.message, "")


def test_the_dtype_counts_for_weights_and_cache(exercises):
    config = SHAPES["qwen2.5-1.5b"]
    wanted = {"float16": 32768, "float32": 4640}
    for dtype, longest in wanted.items():
        got = verdict_of(exercises, config, 8 * GIB, 2048, dtype=dtype).longest
        expect(f"longest for qwen2.5-1.5b with 8 GiB available in {dtype}", got, longest)
