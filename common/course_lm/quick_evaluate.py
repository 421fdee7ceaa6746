"""Score a model folder with Transformers: a fast look on the training machine.

The card's scores come from evaluate.py.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import PeftModel
from transformers import Qwen3ForCausalLM

from common.course_lm import corpus
from common.course_lm.corpus_values import Example
from common.course_lm.scoring import is_right
from common.course_lm.tokenizer import load_tokenizer

SKILLS = [skill for skill in corpus.HELD_OUT_MAKERS if skill not in ("prose", *corpus.ADAPTERS)]


@torch.inference_mode()
def answers(
    model: Qwen3ForCausalLM, tokenizer, examples: list[Example], batch: int = 512, tokens: int = 160
) -> list[str]:
    """Greedy answers, longest prompts together."""
    prompts = [corpus.prompt_of(example) for example in examples]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    out = [""] * len(prompts)
    tokenizer.padding_side = "left"
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        encoded = tokenizer(
            [prompts[i] for i in part],
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,
        ).to(model.device)
        made = model.generate(**encoded, max_new_tokens=tokens, do_sample=False)[:, encoded["input_ids"].shape[1] :]
        for index, text in zip(part, tokenizer.batch_decode(made, skip_special_tokens=True), strict=True):
            out[index] = text
    return out


@torch.inference_mode()
def perplexity(model: Qwen3ForCausalLM, tokenizer, texts: list[str]) -> float:
    """Perplexity per token of texts, each from its own start."""
    total, count = 0.0, 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"].to(model.device)
        logits = model(ids).logits[0, :-1].float()
        total += F.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return math.exp(total / count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--failures", type=int, default=4)
    options = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = load_tokenizer(options.folder / "model")
    model = Qwen3ForCausalLM.from_pretrained(options.folder / "model", dtype=torch.bfloat16).to(device).eval()

    def show(skills: list[str], label: str) -> None:
        examples = [example for skill in skills for example in corpus.held_out(skill, options.count)]
        written = answers(model, tokenizer, examples)
        for skill in skills:
            pairs = [(e, a) for e, a in zip(examples, written, strict=True) if e.skill == skill]
            wrong = [(e, a) for e, a in pairs if not is_right(e, a)]
            print(f"{label} {skill}: {100 * (1 - len(wrong) / len(pairs)):.1f} %")
            for example, answer in wrong[: options.failures]:
                print(
                    "   ",
                    repr((example.free_text[-1:] or corpus.prompt_of(example))[-200:]),
                    "| got",
                    repr(answer[:120]),
                    "| want",
                    repr(example.answer[:120]),
                )

    show([*SKILLS, *corpus.ADAPTERS], "base")
    print(
        "prose perplexity",
        round(perplexity(model, tokenizer, [e.keys[0] for e in corpus.held_out("prose", 60)]), 2),
    )
    for task in corpus.ADAPTERS:
        model = (
            PeftModel.from_pretrained(
                Qwen3ForCausalLM.from_pretrained(options.folder / "model", dtype=torch.bfloat16),
                options.folder / "adapters" / task,
            )
            .to(device)
            .eval()
        )
        show([task], "adapter")


if __name__ == "__main__":
    main()
