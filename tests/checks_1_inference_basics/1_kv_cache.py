"""1. The KV cache"""

import torch

from common.check import expect

# Several threads gain nothing on tensors this small, and on a busy machine they wait for each other for seconds.
torch.set_num_threads(1)

TEXT = [7, 3, 21, 3, 40, 12, 5]


def small_model(exercises, seed: int = 0):
    """Three layers, four query heads on two KV heads, 50 tokens; every weight another random number."""
    draw = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw) * 0.4

    layers = [
        exercises.Layer(4, 2, 6, weights(20, 24), weights(20, 12), weights(20, 12), weights(24, 20)) for _ in "abc"
    ]
    return exercises.Model(weights(50, 20), layers)


def same(got: object, wanted: torch.Tensor) -> bool:
    return isinstance(got, torch.Tensor) and got.shape == wanted.shape and torch.allclose(got, wanted, atol=1e-5)


def told(got: object) -> str:
    return f"a tensor of {list(got.shape)}" if isinstance(got, torch.Tensor) else repr(got)


def test_append_writes_behind_what_is_there(exercises):
    cache = exercises.KVCache(small_model(exercises).layers, capacity=8)
    cache.keys[1][:, :3], cache.values[1][:, :3], cache.length = 1.0, 2.0, 3
    new = torch.arange(24.0).view(2, 2, 6)
    result = cache.append(1, new, -new)
    assert isinstance(result, (tuple, list)) and len(result) == 2, "append should return two tensors: keys and values."
    for name, got, kept, old, wanted in (
        ("keys", result[0], cache.keys[1], 1.0, new),
        ("values", result[1], cache.values[1], 2.0, -new),
    ):
        everything = torch.cat((torch.full((2, 3, 6), old), wanted), dim=1)
        assert not same(got, wanted), (
            f"append returns the new {name} alone; those of the 3 tokens before belong to them."
        )
        assert same(got, everything), (
            f"With 3 tokens cached and 2 new ones, append should return the {name} of all 5, the new ones last: a "
            f"tensor of {list(everything.shape)}. Yours returns {told(got)}, or the numbers in it are others."
        )
        assert same(kept[:, 3:5], wanted), f"append should write the new {name} into the cache, from position 3 on."
        assert not kept[:, 5:].any(), f"append should write the {name} nowhere but at the positions of the new tokens."
    assert not cache.keys[0].any() and not cache.keys[2].any(), "append(1, …) should write to layer 1 alone."
    expect(
        "length after append(1, …) to a cache of 3 tokens: cache.length",
        cache.length,
        3,
        "the other layers still have to write to the same positions",
        {"append moves the length on, so the next layer writes behind the place": 5},
    )


def test_append_refuses_what_does_not_fit(exercises):
    cache = exercises.KVCache(small_model(exercises).layers, capacity=4)
    full = torch.ones(2, 4, 6)
    cache.append(0, full, full)  # exactly as many as fit
    cache.length = 3
    cache.keys[0].zero_()
    try:
        cache.append(0, full[:, :2], full[:, :2])
        outcome = "goes on"
    except ValueError:
        outcome = ""
    except (RuntimeError, IndexError) as error:
        outcome = f"stops with {type(error).__name__} in the middle of writing"
    assert not outcome, f"append of 2 tokens to a cache for 4 that holds 3 should raise ValueError. Yours {outcome}."
    assert not cache.keys[0].any(), "append should write nothing if the new tokens do not fit."


def check_chunk(exercises, before: int, new: int) -> None:
    """Attention of `new` tokens after `before` cached ones against that over the whole text."""
    model = small_model(exercises)
    layer, x = model.layers[1], model.embedding[torch.tensor(TEXT[: before + new])]
    whole = exercises.attention(layer, x)[before:]
    cache = exercises.KVCache(model.layers, capacity=16)
    if before:
        _, keys, values = exercises.project(layer, x[:before], torch.arange(before))
        cache.keys[1][:, :before], cache.values[1][:, :before], cache.length = keys, values, before
    got = exercises.cached_attention(1, layer, x[before:], cache)
    call = f"cached_attention of {new} new token{'s' * (new > 1)} after {before} cached"
    assert isinstance(got, torch.Tensor), f"{call} should return a tensor; yours returns {got!r}."
    assert got.shape == whole.shape, f"{call} should have the shape {list(whole.shape)}; yours has {list(got.shape)}."
    if same(got, whole):
        return
    q, k, v = exercises.project(layer, x, torch.arange(before + new))
    k, v = k.repeat_interleave(2, dim=0), v.repeat_interleave(2, dim=0)

    def mistaken(mask: torch.Tensor, q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v) -> torch.Tensor:
        scores = q[:, -new:] @ k.transpose(-1, -2) / layer.width**0.5
        return (scores.masked_fill(mask, -torch.inf).softmax(-1) @ v).transpose(0, 1).flatten(1) @ layer.out

    places = torch.arange(before + new)
    right = places > places[before:, None]
    from_zero_q, from_zero_k, _ = exercises.project(layer, x[before:], torch.arange(new))
    wrong_k = torch.cat((k[:, :before], from_zero_k.repeat_interleave(2, dim=0)), dim=1)
    known = {
        "a new token sees tokens that come after it: the mask is missing": mistaken(torch.zeros_like(right)),
        "the mask counts the new tokens from 0, so they do not see the cached ones": mistaken(
            places > places[:new, None]
        ),
        "the new tokens stand at positions 0, 1, …, and not behind the cached ones": mistaken(
            right, from_zero_q, wrong_k
        ),
        "Q is at the right positions and K is not": mistaken(right, q, wrong_k),
        "a token does not see itself": mistaken(places >= places[before:, None]),
    }
    named = next((f"\nIt looks as if {mistake}." for mistake, wanted in known.items() if same(got, wanted)), "")
    raise AssertionError(f"{call} should be what `attention` gives over all {before + new}, for the last {new}.{named}")


def test_one_token_after_others(exercises):
    check_chunk(exercises, before=5, new=1)


def test_a_whole_prompt_in_an_empty_cache(exercises):
    check_chunk(exercises, before=0, new=6)


def test_a_second_chunk_of_a_prompt(exercises):
    check_chunk(exercises, before=3, new=4)


def test_generate_gives_the_same_tokens(exercises):
    for seed in range(4):
        model = small_model(exercises, seed)
        text = list(TEXT)
        for _ in range(12):
            text.append(int(exercises.logits(model, text).argmax()))
        cache = exercises.KVCache(model.layers, capacity=32)
        got = exercises.generate(model, TEXT, 12, cache)
        expect(
            f"generate of 12 tokens after {TEXT}",
            got,
            text[len(TEXT) :],
            "those that the model gives without a cache",
            {"the prompt is part of your answer": text, "the last token is missing": text[len(TEXT) : -1]},
        )
        expect(
            "After generate of 12 tokens to a prompt of 7: cache.length",
            cache.length,
            len(TEXT) + 11,
            "7 of the prompt and 11 of the answer",
            {"the last token is computed too, though nothing follows it": len(TEXT) + 12},
        )


def test_generate_computes_each_token_once(exercises, monkeypatch):
    model, sizes, logits = small_model(exercises), [], exercises.logits

    def counted(model, tokens, cache=None):
        sizes.append(len(tokens))
        return logits(model, tokens, cache)

    monkeypatch.setattr(exercises, "logits", counted)
    exercises.generate(model, TEXT, 5, exercises.KVCache(model.layers, capacity=32))
    expect(
        "generate of 5 tokens after 7: the number of tokens in each call of logits",
        sizes,
        [7, 1, 1, 1, 1],
        "the prompt once, then each new token once",
        {
            "the whole text goes through each time: that is the work the cache saves": [7, 8, 9, 10, 11],
            "the prompt goes through token by token": [1] * 11,
        },
    )
