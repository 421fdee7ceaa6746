"""What one mask costs: xgrammar alone, called as vLLM calls it for each constrained sequence in each step."""

import random
import statistics
import time
from collections.abc import Iterator, Mapping

from common import models


def mean_ms(model: models.Model, constraints: Mapping[str, dict], tokens: int, walks: int) -> dict[str, float]:
    """The mean time of a mask in ms for each of `constraints`: what a request has as `structured_outputs`, or nothing.

    It is taken over `walks` answers of so many tokens, each of them drawn from those that are allowed.
    """
    import torch
    import xgrammar
    from transformers import AutoTokenizer

    size, bits = model.config["vocab_size"], torch.arange(32)
    info = xgrammar.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(model.path), vocab_size=size)
    compiler, mask = xgrammar.GrammarCompiler(info), xgrammar.allocate_token_bitmask(1, size)
    compile_as = {
        "json": compiler.compile_json_schema,
        "regex": compiler.compile_regex,
        "grammar": compiler.compile_grammar,
    }

    def seconds(form: str, constraint: object) -> Iterator[float]:
        compiled = compile_as[form](constraint)
        for walk in range(walks):
            draw, matcher = random.Random(walk), xgrammar.GrammarMatcher(compiled)
            for _ in range(tokens):
                start = time.perf_counter()
                matcher.fill_next_token_bitmask(mask)
                yield time.perf_counter() - start
                allowed = torch.nonzero((mask[0].unsqueeze(1) >> bits) & 1)
                word, bit = allowed[draw.randrange(len(allowed))].tolist()
                matcher.accept_token(word * 32 + bit)

    forms = {name: each["structured_outputs"] for name, each in constraints.items() if each}
    return {
        name: statistics.mean(seconds(form, constraint)) * 1e3
        for name, each in forms.items()
        for form, constraint in each.items()
    }


def kept_share(free_tok_s: float, mask_ms: float, gpu: bool) -> float:
    """What a constraint leaves of the tokens/s of free text, if the masks of a step are made one after the other.

    vLLM makes them while a GPU computes; where the model runs on the CPU too, each comes on top.
    """
    token_s, mask_s = 1 / free_tok_s, mask_ms / 1e3
    return token_s / (max(token_s, mask_s) if gpu else token_s + mask_s)
