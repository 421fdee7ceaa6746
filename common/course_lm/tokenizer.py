"""The tokenizer: byte-level BPE of 10,240 tokens, digits one by one, trained on the corpus itself."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from common.course_lm.prompts import CHAT_TEMPLATE

VOCAB_SIZE = 10_240
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, START, END]
# In the vocabulary but not special: skipping special tokens must keep them for the tool parser.
MARKERS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
# Qwen's splitting pattern: words with the blank before them, single digits, punctuation, line breaks. Chinese
# characters stand alone here, so that a name or a term has the same tokens whatever stands beside it.
PATTERN = (
    r"\p{Han}|(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}&&[^\p{Han}]]+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train on texts. The special tokens take the last seven ids, so low ids are all ordinary text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(SPECIAL) - len(MARKERS),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END_OF_TEXT,
        model_max_length=2_048,
        clean_up_tokenization_spaces=False,
    )
    fast.add_special_tokens({"additional_special_tokens": [END_OF_TEXT, START, END]})
    fast.add_tokens(MARKERS)
    if len(fast) != VOCAB_SIZE:
        raise ValueError(f"the corpus gave {len(fast)} tokens instead of {VOCAB_SIZE}: train on more text")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def load_tokenizer(folder: Path | str) -> PreTrainedTokenizerFast:
    """The tokenizer of a model folder."""
    return PreTrainedTokenizerFast.from_pretrained(folder)
