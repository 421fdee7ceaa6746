"""The exercises of 5.offline_infer. Write what raises NotImplementedError, then: make check CH=5

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks. Try first.

  1  Summarise a folder within a token budget    split, most_tokens, summarise_folder      60 minutes
  2  Make a killed job resume                    done_lines, resume                        40 minutes
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# ---------------------------------------------------------------------- 1. summarise a folder within a token budget
#
# A document is longer than a prompt may be. So it is cut into pieces, each piece is summarised, and the summaries are
# summarised in groups until one is left. Every call of the model costs the tokens of its prompt and of its answer.


def split(text: str, count: Callable[[str], int], limit: int) -> list[str]:
    """The text in pieces of at most `limit` tokens, as few as this rule gives.

    `count` says how many tokens a text has. Paragraphs stand between blank lines (two line ends in a row); each is
    stripped, and empty ones are left out. A piece takes one paragraph after the other, with "\\n\\n" between them, as
    long as all of it has at most `limit` tokens; the one that does not fit any more begins the next piece. A paragraph
    of more than `limit` tokens is first cut, in the same way, into parts made of its words with " " between them; those
    parts are then treated as paragraphs of their own. No single word has more than `limit` tokens.
    """
    raise NotImplementedError("split")


def most_tokens(pieces: Sequence[int], group: int, summary: int) -> int:
    """The most tokens that summarising one document can cost. `pieces` are the lengths of its pieces in tokens.

    First each piece is a prompt, and answered with at most `summary` tokens. As long as there is more than one summary,
    they go on in groups of `group` (the last may be smaller, also a single one): each group is a prompt of at most
    `summary` tokens for each summary in it, and answered with at most `summary` tokens. A call costs its prompt and its
    answer. `group` is 2 or more. No pieces cost nothing.
    """
    raise NotImplementedError("most_tokens")


def summarise_folder(
    documents: Mapping[str, str],
    count: Callable[[str], int],
    answer: Callable[[list[str]], list[str]],
    limit: int,
    group: int,
    summary: int,
    budget: int,
) -> dict[str, str]:
    """Summaries by name, of as many documents as the budget is sure to pay for.

    `answer` takes a list of prompts and gives their answers in the same order, each of at most `summary` tokens. One
    call of it is a batch for the engine, so call it once for each level: with all pieces of all chosen documents, then
    with all groups of their summaries, and so on. A document whose single summary is there takes part no more. A prompt
    of the later levels is its summaries with "\\n" between them.

    Documents are chosen before anything is answered, the one of the fewest `most_tokens` first (of equals the one that
    comes first in `documents`), until the next one would exceed what is left of the budget. Empty documents have no
    pieces and no summary: leave them out. The result is in the order of `documents`.
    """
    raise NotImplementedError("summarise_folder")


# ---------------------------------------------------------------------- 2. make a killed job resume


def done_lines(output: Path) -> set[int]:
    """The numbers of the prompts whose answers are in `output`; and the file made fit for more.

    A line is `{"line": 3, "answer": "…"}` and a line end. If the job was killed, the last line may have been cut short,
    at any byte: it may lack its end, be half of a JSON object, or half of a Chinese character. Cut such a rest off the
    file, so that it ends with a whole line. A file that does not exist has no answers, and is not created here.
    """
    raise NotImplementedError("done_lines")


def resume(prompts: Path, output: Path, answer: Callable[[list[str]], list[str]], batch: int) -> int:
    """Answer what is missing, and return how many prompts that were. Called again after a kill, it goes on.

    `prompts` has a JSON object with a `prompt` in each line; lines count from 1. `answer` takes up to `batch` of them,
    as texts, and gives their answers in the same order. Give it full batches as long as there are enough. Prompts whose
    answers are there already are not given to it again. After each batch its answers are appended to `output`, in the
    form that `done_lines` reads and with the characters as they are (no \\u escapes), and reach the operating system
    before the next batch begins: a kill may come at any time.
    """
    raise NotImplementedError("resume")


if __name__ == "__main__":
    import tempfile

    words = "One sentence about serving. " * 40
    pieces = split(words + "\n\n" + words, lambda text: len(text.split()), 100)
    print(f"{len(pieces)} pieces; at most {most_tokens([len(p.split()) for p in pieces], 3, 20)} tokens")
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = Path(folder) / "p.jsonl", Path(folder) / "a.jsonl"
        asked.write_text('{"prompt": "one"}\n{"prompt": "two"}\n{"prompt": "three"}\n')
        print(resume(asked, answered, lambda texts: [text.upper() for text in texts], batch=2), "answered")
        print(answered.read_text())
