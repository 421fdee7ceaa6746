"""The tokenizer: byte-level BPE of 10,240 tokens, digits one by one, trained on the corpus itself.

A name, a thing or a number has the same tokens wherever it stands: after a blank, a quotation mark or a bracket. Then
copying it from a sentence into JSON is copying tokens, which a small model learns once for all words; where " tailor"
and "tailor" are cut apart in different places it has to know how each piece is spelled. So no merge joins a blank or
a quotation mark to letters. Only the most frequent words of the corpus, which are hardly ever copied, keep the blank
before them, each as a token of its own.
"""

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from common.course_lm.corpus_values import ENGLISH, HELD_OUT, OPEN_LISTS, plural, split_of
from common.course_lm.corpus_words import SYLLABLES
from common.course_lm.prompts import CHAT_TEMPLATE

VOCAB_SIZE = 10_240
END_OF_TEXT, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL = [END_OF_TEXT, START, END]
# In the vocabulary but not special: skipping special tokens must keep them for the tool parser.
MARKERS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
# How many words have a token with the blank before them.
WORDS_WITH_BLANK = 1_200
# A run of letters is cut before a capital that follows a small letter ("v|LLM"), and before "_", which stays with the
# letters after it ("max|_num|_seqs"). Chinese characters stand alone.
LETTERS = r"(?:\p{Lu}*[\p{L}&&[^\p{Lu}\p{Han}]]+|\p{Lu}+)"
PATTERN = (
    r"\p{Han}|(?i:'(?:s|t|re|ve|m|ll|d))(?!\p{L})|%s|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def splitter(words: str) -> pre_tokenizers.PreTokenizer:
    """Cut text by PATTERN with the given pattern of words, then spell bytes as characters."""
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN % words), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@lru_cache(maxsize=1)
def value_words() -> tuple[frozenset[str], frozenset[str]]:
    """All words that the corpus draws as values, and those of them that are held out; plurals and capitals too."""
    drawn = {(entry, word) for entries in OPEN_LISTS for entry in entries for word in entry.split(" ")}
    forms = {form for _, word in drawn for form in spellings(word)}
    held_out = {
        form for entry, word in drawn if entry == word and split_of(entry) == HELD_OUT for form in spellings(word)
    }
    return frozenset(forms), frozenset(held_out)


def spellings(word: str) -> set[str]:
    """A word in singular and plural, with a small and a capital letter."""
    return {form for one in (word, plural(word)) for form in (one, one.lower(), one.capitalize())}


def without_held_out(text: str) -> str:
    """The text less the words that only held-out examples have as values: the tokenizer must not know them whole."""
    held_out = value_words()[1]
    return re.sub(r"[A-Za-z]+", lambda match: "" if match[0] in held_out else match[0], text)


def words_with_blank(texts: list[str]) -> list[str]:
    """The most frequent words after a blank that are no values, the most frequent first."""
    counts = Counter(word for text in texts for word in re.findall(r" ([A-Z]*[a-z]+|[A-Z]+)", text))
    # A syllable of invented words can be a word of its own ("is", "to"), but then it is frequent.
    syllables = {word for word in SYLLABLES if counts[word] < len(texts) / 200}
    drawn = value_words()[0] | set(ENGLISH) | syllables
    words = sorted((word for word in counts if word not in drawn), key=lambda word: (-counts[word], word))
    return words[:WORDS_WITH_BLANK]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Train on texts. The special tokens take the last seven ids, so low ids are all ordinary text."""
    words = words_with_blank(texts)
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = splitter(f"_?{LETTERS}")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(words) - len(SPECIAL) - len(MARKERS),
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner.train_from_iterator((without_held_out(text) for text in texts), trainer)
    learned = json.loads(learner.to_str())["model"]
    vocabulary = learned["vocab"] | {f"Ġ{word}": len(learned["vocab"]) + i for i, word in enumerate(words)}
    merges = [tuple(merge) for merge in learned["merges"]]
    # ignore_merges: a piece that is in the vocabulary as a whole is one token, though no merge leads to it.
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    tokenizer.pre_tokenizer = splitter(f"[ _]?{LETTERS}")
    tokenizer.decoder = decoders.ByteLevel()
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
