"""Answer a file of prompts without a server: JSONL in, JSONL out, and the same command again goes on where it stopped.

    python 5.offline_infer/batch_runner.py prompts.jsonl answers.jsonl --max-tokens 64
    python 5.offline_infer/batch_runner.py prompts.jsonl answers.jsonl --model Qwen/Qwen3-8B --in-order

A line of prompts.jsonl is `{"prompt": "…"}`, or `{"messages": [{"role": "user", "content": "…"}]}`, or
`{"prompt_token_ids": [1, 2]}`; `id` and `max_tokens` may be added. A line of answers.jsonl has the number of the
prompt's line, its id, the answer, why it ended, and its tokens. What can't be answered goes to answers.errors.jsonl.

The engine always holds about `window` requests, those that run and as many that wait, and gets a new one for each that
is finished. So no step waits for the end of a batch, and memory does not depend on the length of the file.

Exit status: 0 all is answered, 3 all is done but some lines could not be answered, 1 a problem, 130 interrupted.
"""

import argparse
import copy
import dataclasses
import difflib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from batch_job import BatchJob, Prompt
from jinja2 import TemplateError
from no_orphans import no_orphans

from common import hardware, interrupts, models
from common.engine_core import wait_for_output
from common.problems import Problem, explain, first_line

# Engine options that may change the answers: a job is resumed only with the same.
CHANGE_ANSWERS = ("dtype", "generation_config", "hf_overrides", "kv_cache_dtype", "load_format", "logits_processors")
CHANGE_ANSWERS += ("model_impl", "quantization", "revision", "tokenizer", "tokenizer_revision")
SET_HERE = {  # engine options that the runner gives itself, and what to do
    "model": "Take --model.",
    "disable_log_stats": "Leave it out: `VLLM_LOGGING_LEVEL=INFO` before the command shows the log.",
    "use_tqdm_on_load": "Leave it out.",
}
RATE_OVER_S = 30.0  # the rate and the time left are those of the last half minute


@dataclass
class Progress:
    """Where a job is. Rates leave out what an earlier run had done."""

    total: int
    found_done: int
    done: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    waiting_s: float = 0.0  # for outputs of the engine's process
    start_s: float = field(default_factory=time.monotonic)
    _recent: deque = field(default_factory=lambda: deque([(time.monotonic(), 0, 0)]))

    def note(self) -> None:
        """Remember where it is now, and forget what lies longer back than RATE_OVER_S."""
        self._recent.append((time.monotonic(), self.done - self.found_done, self.output_tokens))
        while len(self._recent) > 2 and self._recent[-1][0] - self._recent[1][0] > RATE_OVER_S:
            self._recent.popleft()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start_s

    def __str__(self) -> str:
        (then, lines_then, tokens_then), (now, lines, tokens) = self._recent[0], self._recent[-1]
        passed = max(now - then, 1e-6)
        rate, tok_s = (lines - lines_then) / passed, (tokens - tokens_then) / passed
        left = f"{duration((self.total - self.done) / rate)} left" if rate else "time left not known yet"
        failed = f", {self.failed:,} can't be answered" if self.failed else ""
        share = self.done / self.total * 100
        return f"{self.done:,} of {self.total:,} ({share:.1f} %){failed}, {rate:,.1f}/s, {tok_s:,.0f} tokens/s, {left}"


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def run(
    llm,
    job: BatchJob,
    sampling,
    window: int | None = None,
    on_progress: Callable[[Progress], object] = lambda _: None,
    every_s: float = 1.0,
) -> Progress:
    """Answer all that is pending in a job. `sampling` is vLLM's SamplingParams; a prompt's own max_tokens goes first.

    `window` is how many requests the engine holds; twice max_num_seqs if it is not given, so that a free slot finds
    somebody waiting. `on_progress` is called every `every_s` seconds and at the end. However this ends, what was
    written is whole, and the requests that were under way are taken out of the engine.
    """
    from vllm.exceptions import VLLMClientError
    from vllm.sampling_params import RequestOutputKind

    sampling = sampling.clone()
    sampling.output_kind = RequestOutputKind.FINAL_ONLY
    engine = llm.llm_engine
    window = window or 2 * engine.vllm_config.scheduler_config.max_num_seqs
    progress = Progress(job.total, job.found_done, job.found_done, job.failed)
    prompts, exhausted, running = job.pending(), False, {}
    next_note_s = time.monotonic() + every_s
    try:
        while True:
            while not exhausted and len(running) < window:
                try:
                    prompt = next(prompts)
                except StopIteration:
                    exhausted = True
                    break
                if prompt is None:  # too far ahead of the oldest one
                    break
                try:
                    request = add(llm, prompt, sampling)
                except (VLLMClientError, TemplateError, TypeError, ValueError) as reason:
                    # too long, an unknown token, a role that the template does not have, half of an emoji
                    job.fail(prompt.line, first_line(reason))
                    continue
                running[request] = prompt
            if not running and exhausted:
                break
            before_s = time.monotonic()
            wait_for_output(engine.engine_core)
            progress.waiting_s += time.monotonic() - before_s
            for output in engine.step():
                prompt, answer = running.pop(output.request_id), output.outputs[0]
                tokens = len(output.prompt_token_ids or ())
                content = {"id": prompt.id, "answer": answer.text, "finish_reason": answer.finish_reason}
                job.answer(prompt.line, content | {"prompt_tokens": tokens, "output_tokens": len(answer.token_ids)})
                progress.prompt_tokens += tokens
                progress.output_tokens += len(answer.token_ids)
            if time.monotonic() >= next_note_s:
                tell(progress, job, on_progress)
                next_note_s = time.monotonic() + every_s
    finally:
        if running:
            with suppress(Exception):  # an engine that died has nothing to be taken out
                engine.abort_request(list(running), internal=False)
        tell(progress, job, on_progress)
    return progress


def tell(progress: Progress, job: BatchJob, on_progress: Callable[[Progress], object]) -> None:
    job.sync_if_due()
    progress.done, progress.failed = len(job.done), job.failed
    progress.note()
    on_progress(progress)


def add(llm, prompt: Prompt, sampling) -> str:
    """Hand a prompt to the engine; returns its name there. Raises what vLLM says of a prompt that it can't answer."""
    if prompt.max_tokens is not None:
        sampling = copy.copy(sampling)  # the engine makes a deep copy of its own; `clone` would make a second one
        sampling.max_tokens = prompt.max_tokens
    asked = {"prompt": prompt.text}
    if prompt.token_ids is not None:
        asked = {"prompt_token_ids": prompt.token_ids}
    elif prompt.messages is not None:
        tokenizer = llm.get_tokenizer()
        text = tokenizer.apply_chat_template(prompt.messages, tokenize=False, add_generation_prompt=True)
        # The template wrote the special tokens already.
        asked = {"prompt_token_ids": tokenizer.encode(text, add_special_tokens=False)}
    name = str(prompt.line)
    llm.llm_engine.add_request(name, llm.renderer.render_cmpl([asked])[0], sampling)
    return name


# ---------------------------------------------------------------------------------------------------- command line


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_option = words.add_argument
    add_option("prompts", type=Path, help="a file of JSON lines")
    add_option("answers", type=Path, help="where the answers go")
    add_option("--model", default="course-lm", help="course-lm, shape:NAME, a folder or a hub name")
    add_option("--max-tokens", type=int, default=256, help="most tokens of an answer (256)")
    add_option("--temperature", type=float, default=0.0, help="0, the default, takes the likeliest token")
    add_option("--top-p", type=float, default=1.0)
    add_option("--seed", type=int, help="makes sampling repeatable")
    add_option("--in-order", action="store_true", help="write answers in the order of the prompts")
    add_option("--window", type=int, help="requests in the engine at once (twice max_num_seqs)")
    add_option("--engine", type=engine_options, default={}, metavar="JSON", help="such as '{\"max_model_len\": 4096}'")
    return words


def engine_options(text: str) -> dict[str, object]:
    """What --engine says. Raises ArgumentTypeError if it is not a JSON object."""
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object such as '{{\"max_model_len\": 4096}}'")
    return options


def check_engine_options(options: dict[str, object]) -> None:
    """Raise Problem for an engine option that vLLM does not have, or that another option of the runner sets."""
    if not options:
        return  # importing vLLM takes seconds
    from vllm.engine.arg_utils import EngineArgs

    known = {option.name for option in dataclasses.fields(EngineArgs)} - SET_HERE.keys()
    for name in options:
        if name in SET_HERE:
            raise Problem(f"--engine can't set {name}.", SET_HERE[name])
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]}? " if near else ""
            raise Problem(
                f"vLLM's engine has no option {name}.", f"{hint}`vllm serve --help=all` lists them, with hyphens."
            )


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status that the docstring of this file lists. The engine is left running."""
    options = parser().parse_args(arguments)
    for name, value in {"VLLM_LOGGING_LEVEL": "WARNING", "TORCH_CPP_LOG_LEVEL": "ERROR"}.items():
        os.environ.setdefault(name, value)
    sampling = {"temperature": options.temperature, "top_p": options.top_p, "seed": options.seed}
    sampling["max_tokens"] = options.max_tokens
    try:
        if options.window is not None and options.window < 1:
            raise Problem(f"--window {options.window} lets no request in.", "Take 1 or more.")
        model = models.resolve(options.model)
        check_engine_options(options.engine)
        settings = {"model": model.name, "sampling": sampling}
        settings |= {name: options.engine[name] for name in CHANGE_ANSWERS if name in options.engine}
        if model.weights == "trained":  # course-lm is there to be trained again
            settings["weights"] = model.weights_id
        with BatchJob(options.prompts, options.answers, settings, options.in_order) as job, no_orphans():
            return answer_all(job, model, options, sampling)
    except (interrupts.Interrupted, KeyboardInterrupt):
        say("Interrupted. All answers so far are written; the same command goes on from there.")
        return 130
    except Exception as error:
        meaning, fix = explain(error)
        say(f"error    {first_line(error)}" + (f"\nmeaning  {meaning}" if meaning else "") + f"\nfix      {fix}")
        return 1


def answer_all(job: BatchJob, model: models.Model, options: argparse.Namespace, sampling: dict) -> int:
    """Start the engine if there is something to do, and do it."""
    say(f"{job.total:,} prompts, {job.found_done:,} of them done already")
    if job.found_done < job.total:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError

        try:
            params = SamplingParams(**sampling)
        except (VLLMClientError, ValueError) as error:
            raise Problem(f"These sampling options can't be: {first_line(error)}", "See --help.") from None
        progress = run(models.engine(model, hardware.machine(), **options.engine), job, params, options.window, show)
        say(f"{progress.done - progress.found_done:,} prompts in {duration(progress.seconds)}")
        if progress.done < job.total:
            raise Problem(
                f"{job.prompts} had {job.total:,} lines at first, and no longer has all of them.",
                "Put it back as it was and give the same command again, or begin another output.",
            )
    if job.failed:
        say(f"{job.failed:,} lines could not be answered: see {job.errors.path}")
    return 3 if job.failed else 0


def show(progress: Progress) -> None:
    """On a terminal one line that changes, elsewhere one line each time."""
    print(f"{fresh_line()}{progress}", end="" if sys.stderr.isatty() else "\n", file=sys.stderr, flush=True)


def say(text: str) -> None:
    print(f"{fresh_line()}{text}", file=sys.stderr, flush=True)


def fresh_line() -> str:
    """On a terminal what goes to the start of the line and clears it: progress may stand there."""
    return "\r\x1b[K" if sys.stderr.isatty() else ""


if __name__ == "__main__":
    interrupts.hear()
    try:
        status = main()
    finally:
        interrupts.ignore()  # everything is written; only the engine has to go
        models.close_engine()
    sys.exit(status)
