"""What an experiment is handed while it runs: sizes, predictions, progress, engines, and the place for its findings."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from common import models, serving, trace
from common.hardware import Machine
from common.screen import Progress, Screen


class Run:
    """One running experiment. `model` and `machine` are resolved; `tokens` counts what engines generated."""

    def __init__(
        self,
        options: argparse.Namespace,
        machine: Machine,
        model: models.Model,
        screen: Screen,
        status: Progress,
        logs: Path,
        rows_of: Callable[[str], list[dict]],
    ):
        self.options, self.machine, self.model, self.logs = options, machine, model, logs
        self._screen, self._status = screen, status
        self.rows_of = rows_of  # the rows of another experiment of this chapter
        self.smoke: bool = options.smoke
        self.predictions: list[dict] = []
        self.settings: dict[str, object] = {}
        self.sentence = ""
        self.tokens = 0

    def size(self, full, smoke):
        """`full`, or `smoke` when the demo only has to show that it works."""
        return smoke if self.smoke else full

    @property
    def repeats(self) -> int:
        """Three, because lessons quote medians of three; one in a smoke run; what --repeats says."""
        return self.options.repeats or self.size(full=3, smoke=1)

    def predict(self, name: str, value: float, unit: str, because: str) -> None:
        """Show and record a prediction before the measurement that tests it."""
        self.predictions.append({"name": name, "value": float(f"{value:.4g}"), "unit": unit, "because": because})
        self._status.stop()
        self._screen.prediction(name, value, unit, because)
        self._status.start()

    def measured(self, name: str, value: float) -> None:
        """What became of the prediction of that name."""
        next(p for p in self.predictions if p["name"] == name)["measured"] = float(f"{value:.4g}")

    def setting(self, **settings: object) -> None:
        """Record a setting that the rows don't show: lengths, seeds, deadlines, warm-ups, repeats."""
        self.settings |= settings

    def step(self, text: str) -> None:
        """Say what is being done now."""
        self._status.update(text)

    def show(self, title: str, text: str) -> None:
        """Put something on the screen that is worth seeing while the experiment runs: an answer, a request."""
        self._status.stop()
        self._screen.aside(title, text)
        self._status.start()

    def stream(self, title: str, pieces: Iterable[str]) -> None:
        """Show a text piece by piece as it comes."""
        self._status.stop()
        self._screen.stream(title, pieces)
        self._status.start()

    def reading(self, sentence: str) -> None:
        """The one sentence that says what the table shows."""
        self.sentence = sentence

    def count(self, tokens: int) -> int:
        """Add generated tokens to the report; returns them."""
        self.tokens += tokens
        return tokens

    def engine(self, model: models.Model | None = None, **options: object):
        """A vLLM engine of this run's model (or another); see `models.engine`."""
        self.step(f"starting vLLM with {(model or self.model).name}")
        return models.engine(model or self.model, self.machine, **self._traced(options))

    @contextmanager
    def serve(self, *options: str, model: models.Model | None = None, **arguments: object) -> Iterator[serving.Server]:
        """`vllm serve` for the length of a block; see `serving.serve`."""
        self.step(f"starting vllm serve with {(model or self.model).name}")
        log = self.logs / f"server-{len(list(self.logs.iterdir()))}.log"
        arguments = self._traced(arguments)
        if arguments.get("scheduler_cls", "") is None:  # a command line has no word for vLLM's own one
            del arguments["scheduler_cls"]
        with serving.serve(model or self.model, self.machine, log, *options, **arguments) as server:
            yield server

    def _traced(self, arguments: dict[str, object]) -> dict[str, object]:
        """With --trace the scheduler is one that records, unless the experiment names one (None: vLLM's own)."""
        return {"scheduler_cls": trace.SCHEDULER} | arguments if self.options.trace else arguments
