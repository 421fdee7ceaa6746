"""Whether an answer to a held-out example is right: one rule per skill."""

import json
import re
import signal
from collections.abc import Sequence
from types import FrameType

from common.course_lm.corpus_values import Example

CONTAINS = {"terms_en", "terms_zh", "chinese"}


def is_right(example: Example, answer: str) -> bool:
    """Whether the answer is right by its skill's rule."""
    answer = answer.strip()
    if example.skill in CONTAINS:
        return any(key.lower() in answer.lower() for key in example.keys)
    if example.skill == "story":
        return all(key in answer for key in example.keys)
    if example.skill == "arithmetic":
        numbers = re.findall(r"-?\d+", answer)
        return bool(numbers) and numbers[-1] == example.keys[0]
    if example.skill in ("json", "schema"):
        return parsed(answer) == json.loads(example.keys[0])
    if "<tool_call>" in example.answer:
        calls = [parsed(text) for text in re.findall(r"<tool_call>(.*?)</tool_call>", answer, re.DOTALL)]
        wanted = example.answer.removeprefix("<tool_call>").removesuffix("</tool_call>")
        return calls == [json.loads(wanted)]
    if example.skill == "code":
        return runs_right(example, answer)
    if example.skill == "edit":
        return edits_right(example, answer)
    return answer == example.keys[0].strip()


def parsed(text: str) -> object:
    """A text as JSON, or None."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def runs_right(example: Example, answer: str) -> bool:
    """Whether the written function returns the true one's values on the example's calls."""
    *calls, truth = example.keys
    block = re.search(r"```python\n(.*?)```", answer, re.DOTALL)
    if example.prompt:
        source = f"{example.prompt}\n    {answer.split('<|endoftext|>')[0]}\n"
    else:
        source = block.group(1) if block else answer
    right = values(truth, calls)
    if right is None:
        raise ValueError(f"the true function fails on its own calls: {truth}")
    return values(source, calls) == right


def edits_right(example: Example, answer: str) -> bool:
    """Whether the edit can be applied to the prompt's source, and the changed function returns the right values."""
    *calls, truth = example.keys
    source = re.search(r"```python\n(.*?)\n```", example.messages[-2]["content"], re.DOTALL).group(1)
    change = parsed(answer)
    if not isinstance(change, dict) or not all(isinstance(change.get(key), str) for key in ("old", "new")):
        return False
    if source.count(change["old"]) != 1:
        return False
    return values(source.replace(change["old"], change["new"]), calls) == values(truth, calls)


def values(source: str, calls: Sequence[str], seconds: int = 2) -> list[str] | None:
    """The calls' results as text, or None where the source fails or takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        scope: dict = {}
        exec(source, scope)
        return [repr(eval(call, scope)) for call in calls]
    except Exception:  # whatever a model's program raises, it is wrong
        return None
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
