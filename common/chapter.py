"""What demo.py files are made of: experiments, the options they all share, and the run from card to report.

A demo makes one `Chapter`, marks its experiments with `@chapter.experiment`, and calls `chapter.main()`.
"""

import argparse
import ast
import json
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from common import estimator, hardware, interrupts, models, results, timeline, trace
from common.dependencies import source_hash
from common.figures import Figure
from common.problems import NotOnThisMachine, Problem, explain, first_line
from common.run import Run
from common.screen import Screen, output_to

QUIET = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
WITHOUT_INFLUENCE = {"only", "save", "resume", "json", "present"}  # options that change no record
WIDEST = 8  # columns that a screen shows; further ones are in results.md


@dataclass(frozen=True)
class Experiment:
    """One experiment of a demo: its name, its question (the docstring's first line), whether it needs a GPU."""

    name: str
    question: str
    measure: Callable[[Run], pd.DataFrame]
    gpu: bool
    compare: str | None
    compact: bool


class Chapter:
    """A chapter's demo. `speed` says that its default model is the shape that fits the GPU, else course-lm."""

    def __init__(self, demo: str, speed: bool = False):
        self.demo = Path(demo).resolve()
        self.folder = self.demo.parent
        self.title = (ast.get_docstring(ast.parse(self.demo.read_text())) or self.folder.name).splitlines()[0]
        self.speed = speed
        self.experiments: dict[str, Experiment] = {}
        self.figures: list[Figure] = []
        self.parser = self._parser()

    def experiment(
        self,
        measure: Callable | None = None,
        *,
        gpu: bool = False,
        compare: str | None = None,
        compact: bool = False,
    ):
        """Decorator: the function takes a Run and returns a DataFrame.

        gpu: it needs a GPU, and elsewhere the recorded run is shown. compare: the column to hold against
        what other hardware has recorded. compact: one line for each row on the screen.
        """
        if measure is None:
            return lambda function: self.experiment(function, gpu=gpu, compare=compare, compact=compact)
        question = (measure.__doc__ or "").strip().splitlines()[0]
        self.experiments[measure.__name__] = Experiment(measure.__name__, question, measure, gpu, compare, compact)
        return measure

    def option(self, flag: str, **settings: object) -> None:
        """An option of this demo alone, as argparse's add_argument takes it; read it from `run.options`."""
        self.parser.add_argument(flag, **settings)

    def figure(self, **settings: object) -> None:
        """A picture to draw from recorded rows; see `figures.Figure`."""
        self.figures.append(Figure(**settings))

    def _parser(self) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(
            prog=f"{self.folder.name}/demo.py",
            description=ast.get_docstring(ast.parse(self.demo.read_text())),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        add = parser.add_argument
        add("--list", action="store_true", help="list the experiments and end")
        add("--only", metavar="NAME", action="append", help="run this experiment alone (may be repeated)")
        add("--model", help="course-lm, shape:NAME, a folder or a hub name")
        add("--smoke", action="store_true", help="small sizes, the same code")
        add("--repeats", type=int, metavar="N", help="measure everything N times (3; the median counts)")
        add("--save", action="store_true", help="write results/HARDWARE.json")
        add("--resume", action="store_true", help="skip what the same code and options have saved already")
        add("--json", metavar="FILE", type=Path, help="write a report of this run for a machine to read")
        add("--present", action="store_true", help="clear the screen for each experiment and wait for a key")
        add("--replay", nargs="?", const="", metavar="HARDWARE", help="show a recorded run instead of running")
        add("--trace", metavar="FOLDER", type=Path, help="record and draw each step of vLLM's scheduler, into FOLDER")
        add("--gpu-price", type=float, metavar="USD", help="price of this machine in dollars per hour")
        return parser

    def main(self, arguments: list[str] | None = None) -> None:
        """Run the demo as the command line says, and exit: 0 if all went well, 1 if not, 130 if interrupted."""
        options = self.parser.parse_args(arguments)
        if options.list:
            for experiment in self.experiments.values():
                needs = "  (GPU)" if experiment.gpu else ""
                print(f"{experiment.name:30} {experiment.question}{needs}")
            return
        if options.replay is not None and options.save:
            self.parser.error("--replay shows numbers that were recorded: --save can't record them again")
        if options.trace and (options.save or options.replay is not None):
            self.parser.error("--trace watches the engines of this run: it goes neither with --save nor with --replay")
        if options.json:
            try:
                results.write(options.json, "{}\n")  # better to fail now than after the measurements
            except Problem as problem:
                self.parser.error(str(problem))
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        interrupts.hear()
        logs = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}-"))
        with output_to(logs / "vllm.log") as terminal:
            status = Session(self, options, Screen(options.present, terminal), logs).main()
        sys.exit(status)


class Session:
    """One run of a demo from its command line to its exit status."""

    def __init__(self, chapter: Chapter, options: argparse.Namespace, screen: Screen, logs: Path):
        self.chapter, self.options, self.screen, self.logs = chapter, options, screen, logs
        self.machine: hardware.Machine | None = None  # stays None in a replay, which looks at no hardware
        self.model: models.Model | None = None
        self.recorded: dict[str, dict] = {}  # results files by hardware
        self.measured: dict[str, list[dict]] = {}  # rows of this run by experiment
        self.report: list[dict] = []
        self.traces: list[Path] = []  # of --trace
        self.tokens = 0

    def main(self) -> int:
        try:
            self.experiments = self._chosen()
            self.recorded = results.read_all(self.chapter.folder)
            if self.options.replay is None:
                self._prepare()
            else:
                self._choose_recording()
            for place, experiment in enumerate(self.experiments, 1):
                self._one(experiment, f"{place} of {len(self.experiments)}")
            failed = [entry["name"] for entry in self.report if entry["status"] == "failed"]
            if failed:
                self.screen.say(f"failed: {', '.join(failed)}. The log is {self.logs / 'vllm.log'}", style="bold red")
            return 1 if failed else 0
        except (interrupts.Interrupted, KeyboardInterrupt):
            interrupts.ignore()
            more = " What was saved stays saved; --save --resume goes on from there." if self.options.save else ""
            self.screen.say(f"\nInterrupted.{more}")
            return 130
        except Problem as problem:
            self.screen.problem(str(problem), problem.meaning, problem.fix)
            return 1
        except Exception as error:
            self._show_error(error)
            return 1
        finally:
            interrupts.ignore()
            models.close_engine()
            self._write_report()
            self._draw_traces()

    def _chosen(self) -> list[Experiment]:
        if not self.options.only:
            return list(self.chapter.experiments.values())
        unknown = set(self.options.only) - self.chapter.experiments.keys()
        if unknown:
            raise Problem(
                f"There is no experiment {', '.join(sorted(unknown))}.",
                f"Choose from: {', '.join(self.chapter.experiments)}.",
            )
        return [experiment for name, experiment in self.chapter.experiments.items() if name in self.options.only]

    def _prepare(self) -> None:
        """Everything that can be wrong with the command line or the machine, before anything is loaded."""
        if self.options.repeats is not None and self.options.repeats < 1:
            raise Problem("There is nothing to measure in no repeats.", "Take --repeats 1 or more.")
        if self.options.save:
            results.check_writable(self.chapter.folder)
        if self.options.trace:
            trace.check_folder(self.options.trace, self.chapter.folder.name)
        self.machine = hardware.machine()
        if self.options.model or not self.chapter.speed:
            self.model = models.resolve(self.options.model or "course-lm")
            why = "asked for" if self.options.model else "the default: real text, small enough for any machine"
        else:
            self.model, why = models.speed_model(self.machine)
        fit = models.preflight(self.model, self.machine)
        found = results.versions()
        lines = [
            ("hardware", self.machine.describe()),
            ("versions", ", ".join(f"{name} {v}" for name, v in found.items())),
            ("model", f"{self.model.name}, {self.model.weights} weights ({why})"),
        ]
        if fit:
            lines.append(("weights", f"{fit.weights / 1e9:.3g} GB in {models.dtype(self.machine)}"))
            lines.append(("ceiling", self._ceiling()))
        lines.append(("log", str(self.logs / "vllm.log")))
        self.screen.card(self.chapter.title, lines)

    def _ceiling(self) -> str:
        peak = hardware.peak(self.machine.gpus[0].name) if self.machine.gpus else None
        if peak is None:
            return "no published peak for this hardware"
        rate = peak.bandwidth_bytes_s / estimator.step_bytes(self.model.config, 0, models.dtype(self.machine))
        return (
            f"{rate:,.0f} tokens/s for one request: {peak.bandwidth_bytes_s / 1e12:.2f} TB/s ({peak.source}) over "
            "the bytes of the weights that a step reads"
        )

    def _choose_recording(self) -> None:
        wanted = self.options.replay
        if not self.recorded or (wanted and wanted not in self.recorded):
            there = ", ".join(self.recorded) or "none yet"
            raise Problem(f"No run is recorded for {wanted or 'this chapter'}.", f"Recorded hardware: {there}.")

    def _one(self, experiment: Experiment, place: str) -> None:
        self.screen.question(experiment.name, experiment.question, place)
        entry = {"name": experiment.name, "status": "ran", "reason": "", "seconds": 0.0}
        start = time.perf_counter()
        try:
            if self.options.replay is not None:
                raise NotOnThisMachine("asked to replay")
            if experiment.gpu and not self.machine.gpus:
                raise NotOnThisMachine("this machine has no GPU")
            if self.options.save and self.options.resume and self._is_saved(experiment):
                raise NotOnThisMachine("saved already and unchanged since")
            self._run(experiment, start)
        except NotOnThisMachine as reason:
            entry |= self._replay(experiment, str(reason))
        except Exception as error:
            self._show_error(error)
            models.close_engine()
            entry |= {"status": "failed", "reason": f"{type(error).__name__}: {first_line(error)}"}
        entry["seconds"] = round(time.perf_counter() - start, 1)
        self.report.append(entry)

    def _is_saved(self, experiment: Experiment) -> bool:
        """Whether this machine has a record of it, made by the same code and with the same options."""
        record = self._recorded_on(self.machine.slug).get(experiment.name)
        if not record or record["source_hash"] != source_hash(self.chapter.demo, experiment.name):
            return False
        asked, unknown = self.chapter.parser.parse_known_args(shlex.split(record["command"])[2:])
        changed = {name for name, value in vars(self.options).items() if value != getattr(asked, name)}
        return not unknown and not changed - WITHOUT_INFLUENCE

    def _run(self, experiment: Experiment, start: float) -> None:
        before = hardware.clocks()
        with self.screen.status("preparing") as status:
            run = Run(self.options, self.machine, self.model, self.screen, status, self.logs, self._rows_of)
            try:
                with self._traced(experiment):
                    table = experiment.measure(run)
            finally:
                self.tokens += run.tokens
        rows = self.measured[experiment.name] = results.rows(table)
        self.screen.table(self._beside_recorded(experiment, rows), compact=experiment.compact)
        for prediction in run.predictions:
            if "measured" in prediction:
                self.screen.comparison(
                    prediction["name"], prediction["value"], prediction["measured"], prediction["unit"]
                )
        self.screen.say(run.sentence)
        if self.options.save:
            record = results.record(
                folder=self.chapter.folder,
                question=experiment.question,
                command=shlex.join(["python", f"{self.chapter.folder.name}/demo.py", *sys.argv[1:]]),
                hardware=hardware.described(self.machine, before),
                model={"name": run.model.name, "weights": run.model.weights_id, "dtype": models.dtype(self.machine)},
                settings=run.settings | {"smoke": self.options.smoke},
                predictions=run.predictions,
                table=table,
                reading=run.sentence,
                seconds=time.perf_counter() - start,
                source=lambda: source_hash(self.chapter.demo, experiment.name),
            )
            results.save(self.chapter.folder, self.machine.slug, experiment.name, record)

    def _rows_of(self, name: str) -> list[dict]:
        """Rows of another experiment: of this run, else recorded on this hardware; Problem if there are none."""
        recorded = self._recorded_on(self.machine.slug)
        if name in self.measured:
            return self.measured[name]
        if name in recorded:
            return recorded[name]["rows"]
        raise Problem(f"This needs the rows of {name}.", f"Run it in the same call: --only {name} --only …")

    def _beside_recorded(self, experiment: Experiment, rows: list[dict]) -> list[dict]:
        """The rows with a column of what other hardware recorded, where the keys agree and the table has room."""
        rows = [dict(list(row.items())[:WIDEST]) for row in rows]
        others = {slug: stored for slug, stored in self.recorded.items() if slug != self.machine.slug}
        if not experiment.compare or not rows or len(rows[0]) >= WIDEST:
            return rows
        for slug, stored in others.items():
            record = stored["experiments"].get(experiment.name)
            if record:
                keys = [c for c, v in rows[0].items() if isinstance(v, str) or c in ("users", "batch")]
                there = {tuple(row.get(k) for k in keys): row.get(experiment.compare) for row in record["rows"]}
                title = f"{experiment.compare} on {slug}"
                return [row | {title: there.get(tuple(row[k] for k in keys))} for row in rows]
        return rows

    def _recorded_on(self, slug: str) -> dict[str, dict]:
        return self.recorded.get(slug, {}).get("experiments", {})

    def _replay(self, experiment: Experiment, reason: str) -> dict:
        # What was asked for first, but rather other hardware, which is named, than nothing on the screen.
        first = [self.options.replay or ""] + ([self.machine.slug] if self.machine else [])
        wanted = next((slug for slug in [*first, *self.recorded] if experiment.name in self._recorded_on(slug)), "")
        record = self._recorded_on(wanted).get(experiment.name)
        if record is None:
            self.screen.say(f"Not run here: {reason}. No recorded run of it exists yet.", style="yellow")
            return {"status": "skipped", "reason": f"{reason}; nothing is recorded yet"}
        label = f"recorded on {record['hardware']['name']}, {record['date']}, {record['model']['name']}"
        if record["model"]["weights"] == "random":
            label += " (random weights)"
        self.screen.say(f"Shown, not run: {reason}.", style="yellow")
        for prediction in record["predictions"]:
            self.screen.prediction(prediction["name"], prediction["value"], prediction["unit"], prediction["because"])
        self.screen.table([dict(list(row.items())[:WIDEST]) for row in record["rows"]], label, experiment.compact)
        for prediction in record["predictions"]:
            if "measured" in prediction:
                self.screen.comparison(
                    prediction["name"], prediction["value"], prediction["measured"], prediction["unit"]
                )
        self.screen.say(record["reading"])
        return {"status": "replayed", "reason": reason}

    def _show_error(self, error: Exception) -> None:
        meaning, fix = explain(error)
        self.screen.problem(f"{type(error).__name__}: {first_line(error)}", meaning, fix)
        traceback.print_exception(error)  # stderr is the log

    @contextmanager
    def _traced(self, experiment: Experiment) -> Iterator[None]:
        """With --trace: engines that start in this block record, into files that bear the experiment's name."""
        if self.options.trace is None:
            yield
            return
        models.close_engine()  # one that an earlier experiment left up would go on recording under that one's name
        file = self.options.trace / f"{self.chapter.folder.name}-{experiment.name}.jsonl"
        try:
            with trace.recording(file):
                yield
        finally:
            self.traces += trace.files(file)

    def _draw_traces(self) -> None:
        for file in self.traces:
            title = f"{file.stem}: {self.model.name}, {self.model.weights} weights, {self.machine.describe()}"
            try:
                picture, zoomable = timeline.draw_beside(file, title)
                self.screen.say(f"traced  {file}\n        {picture}\n        {zoomable}, for https://ui.perfetto.dev")
            except Problem as problem:
                self.screen.problem(f"{file}: {problem}", problem.meaning, problem.fix)

    def _write_report(self) -> None:
        if not self.options.json:
            return
        report = {
            "chapter": self.chapter.folder.name,
            "hardware": self.machine.slug if self.machine else None,
            "model": self.model.name if self.model else None,
            "smoke": self.options.smoke,
            "generated_tokens": self.tokens,
            "experiments": self.report,
            "rows": self.measured,
        }
        results.write(self.options.json, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
