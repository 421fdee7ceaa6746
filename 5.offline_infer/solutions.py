"""Our solutions of the exercises of 5.offline_infer. Others are as good: what counts is that the checks pass."""

import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

# ---------------------------------------------------------------------- 1. summarise a folder within a token budget


def joined(parts: Sequence[str], between: str, count: Callable[[str], int], limit: int) -> list[str]:
    """Parts put together, `between` between them, as long as they have at most `limit` tokens."""
    found: list[str] = []
    for part in parts:
        if found and count(found[-1] + between + part) <= limit:
            found[-1] += between + part
        else:
            found.append(part)
    return found


def split(text: str, count: Callable[[str], int], limit: int) -> list[str]:
    paragraphs: list[str] = []
    for paragraph in (part.strip() for part in re.split(r"\n\n", text)):
        if count(paragraph) > limit:
            paragraphs += joined(paragraph.split(), " ", count, limit)
        elif paragraph:
            paragraphs.append(paragraph)
    return joined(paragraphs, "\n\n", count, limit)


def most_tokens(pieces: Sequence[int], group: int, summary: int) -> int:
    summaries = len(pieces)
    total = sum(pieces) + summaries * summary
    while summaries > 1:
        groups = -(-summaries // group)
        total += summaries * summary + groups * summary
        summaries = groups
    return total


def summarise_folder(
    documents: Mapping[str, str],
    count: Callable[[str], int],
    answer: Callable[[list[str]], list[str]],
    limit: int,
    group: int,
    summary: int,
    budget: int,
) -> dict[str, str]:
    level = {name: pieces for name, text in documents.items() if (pieces := split(text, count, limit))}
    cost = {name: most_tokens([count(piece) for piece in pieces], group, summary) for name, pieces in level.items()}
    chosen = set()
    for name in sorted(cost, key=cost.get):
        budget -= cost[name]
        if budget < 0:
            break
        chosen.add(name)
    level = {name: pieces for name, pieces in level.items() if name in chosen}
    finished: dict[str, str] = {}
    while level:
        answers = iter(answer([prompt for prompts in level.values() for prompt in prompts]))
        summaries = {name: list(islice(answers, len(prompts))) for name, prompts in level.items()}
        finished |= {name: texts[0] for name, texts in summaries.items() if len(texts) == 1}
        level = {
            name: ["\n".join(texts[start : start + group]) for start in range(0, len(texts), group)]
            for name, texts in summaries.items()
            if len(texts) > 1
        }
    return {name: finished[name] for name in documents if name in finished}


# ---------------------------------------------------------------------- 2. make a killed job resume


def done_lines(output: Path) -> set[int]:
    if not output.exists():
        return set()
    done, whole = set(), 0
    with output.open("r+b") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                break
            done.add(json.loads(raw)["line"])
            whole += len(raw)
        file.truncate(whole)
    return done


def resume(prompts: Path, output: Path, answer: Callable[[list[str]], list[str]], batch: int) -> int:
    done, answered = done_lines(output), 0
    with prompts.open(encoding="utf-8") as lines, output.open("a", encoding="utf-8") as file:
        missing = ((n, json.loads(line)["prompt"]) for n, line in enumerate(lines, 1) if n not in done)
        while todo := list(islice(missing, batch)):
            for (number, _), text in zip(todo, answer([prompt for _, prompt in todo]), strict=True):
                file.write(json.dumps({"line": number, "answer": text}, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())  # after a kill flush would do; this one also outlives a power cut
            answered += len(todo)
    return answered
