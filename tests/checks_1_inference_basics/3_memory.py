"""3. The memory of three models"""

from common import estimator
from common.check import expect
from common.hardware import GIB
from common.models import resolve
from common.shapes import KV_SHAPES, SHAPES

THREE = ("llama-2-7b", "llama-3-8b", "llama-3-70b")


def small(**changes: object) -> dict:
    """A config small enough for a person to add up."""
    config = {
        "model_type": "llama",
        "hidden_size": 32,
        "intermediate_size": 64,
        "vocab_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    return config | changes


def test_weights_of_a_small_model(exercises):
    table, attention, mlp, norms = 3200, 2 * 32 * 32 + 2 * 32 * 16, 3 * 32 * 64, 2 * 32
    total = 2 * table + 3 * (attention + mlp + norms) + 32
    expect(
        f"weight_bytes({small()})",
        exercises.weight_bytes(small()),
        2 * total,
        f"2 bytes × (2 × {table} embedding and head + 3 layers × ({attention} attention + {mlp} MLP + {norms} norms) + "
        "32 last norm)",
        {
            "these are weights, not bytes": total,
            "the output head is missing": 2 * (total - table),
            "the last norm is missing": 2 * (total - 32),
            "the norms of the layers are missing": 2 * (total - 3 * norms),
            "K and V are as wide as Q; they have fewer heads": 2 * (total + 3 * 2 * 32 * 16),
            "the output of attention is missing": 2 * (total - 3 * 32 * 32),
            "the MLP has two matrices": 2 * (total - 3 * 32 * 64),
            "there is one layer": 2 * (total - 2 * (attention + mlp + norms)),
        },
    )


def test_weights_of_the_three(exercises):
    for shape in THREE:
        wanted = estimator.weight_bytes(SHAPES[shape])
        expect(f"weight_bytes of {shape}", exercises.weight_bytes(SHAPES[shape]), wanted, "so says common/estimator.py")


def test_kv_of_a_small_model(exercises):
    for config, wanted, why, mistakes in (
        (
            small(),
            3 * 2 * 2 * 8 * 2,
            "3 layers × (a key and a value) × 2 KV heads × 8 numbers × 2 bytes",
            {
                "only the keys, or only the values, are counted": 3 * 2 * 8 * 2,
                "every attention head has keys and values of its own": 3 * 2 * 4 * 8 * 2,
                "these are numbers, not bytes": 3 * 2 * 2 * 8,
            },
        ),
        (small(head_dim=20), 3 * 2 * 2 * 20 * 2, "head_dim is given, so it isn't hidden_size / heads", {}),
        (small(head_dim=None), 3 * 2 * 2 * 8 * 2, "head_dim is there and says nothing", {}),
        (
            {name: value for name, value in small().items() if name != "num_key_value_heads"},
            3 * 2 * 4 * 8 * 2,
            "without num_key_value_heads each of the 4 attention heads has its own",
            {},
        ),
        (
            small(kv_lora_rank=24, qk_rope_head_dim=6, num_key_value_heads=4),
            3 * 30 * 2,
            "3 layers × (24 + 6) numbers × 2 bytes: with latent attention the heads do not matter",
            {
                "a latent vector is counted for K and again for V": 2 * 3 * 30 * 2,
                "the rotary key is missing": 3 * 24 * 2,
                "latent attention is counted like any other": 3 * 2 * 4 * 8 * 2,
            },
        ),
        (
            small(num_kv_shared_layers=1),
            2 * 2 * 2 * 8 * 2,
            "one of the 3 layers uses another's cache",
            {"shared layers are counted too": 3 * 2 * 2 * 8 * 2, "only the shared layers are counted": 2 * 2 * 8 * 2},
        ),
    ):
        expect(f"kv_bytes_per_token({config})", exercises.kv_bytes_per_token(config), wanted, why, mistakes)


def test_kv_of_published_models(exercises):
    configs = SHAPES | KV_SHAPES | {"course-lm": resolve("course-lm").config}
    del configs["falcon-7b"]  # says "multi_query" where the others say num_key_value_heads
    for name, config in configs.items():
        wanted = estimator.kv_bytes_per_token(config)
        expect(
            f"kv_bytes_per_token of {name}", exercises.kv_bytes_per_token(config), wanted, "so says common/estimator.py"
        )


def test_room_on_a_gpu(exercises):
    config = small()
    weights, token = estimator.weight_bytes(config), estimator.kv_bytes_per_token(config)
    gpu, other = 1_000_000, 10_000
    left = 900_000 - weights - other
    room = exercises.room(config, gpu, context=100, other=other)
    assert isinstance(room, exercises.Room), f"room should return a Room; yours returns {room!r}."
    call = f"room of a model with {weights:,} bytes of weights and {token} a token, on {gpu:,} bytes, 10,000 of other, "
    mistakes = {
        "the share of the GPU is not used": gpu - weights - other,
        "`other` is not taken off": left + other,
        "the weights are not taken off": left + weights,
        "the share is taken of what is left": int(0.9 * (gpu - weights - other)),
    }
    expect(call + "share 0.9: kv_bytes", room.kv_bytes, left, "0.9 of it less weights and other", mistakes)
    expect(call + "share 0.9: tokens", room.tokens, left // token, "whole ones", {"tokens are not whole": left / token})
    wanted = left // token // 100
    expect(
        call + "context 100: requests",
        room.requests,
        wanted,
        "whole ones",
        {"you round up": wanted + 1, "requests are not whole": left / token / 100},
    )
    half = exercises.room(config, gpu, context=100, share=0.5, other=other)
    expect(call + "share 0.5: kv_bytes", half.kv_bytes, 500_000 - weights - other)
    none = exercises.room(config, weights, context=100, other=other)
    expect(
        "room on a GPU as large as the weights: kv_bytes", none.kv_bytes, 0, "nothing is left, and not less than that"
    )
    expect("room on a GPU as large as the weights: tokens", none.tokens, 0)


def test_the_three_on_an_80_gib_gpu(exercises):
    for shape, tokens, requests in (("llama-2-7b", 115_606, 28), ("llama-3-8b", 442_715, 108), ("llama-3-70b", 0, 0)):
        room = exercises.room(SHAPES[shape], 80 * GIB, context=4096)
        expect(f"room of {shape} on 80 GiB for 4,096 tokens each: tokens", room.tokens, tokens)
        expect(f"room of {shape} on 80 GiB for 4,096 tokens each: requests", room.requests, requests)
