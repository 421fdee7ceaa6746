"""Files of measurements: one object per hardware in a chapter's results/ folder, written whole or not at all."""

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd

from common.columns import COLUMNS
from common.dependencies import source_hash
from common.problems import Problem, explain

SCHEMA = 1
PREFERRED = ("h100", "h200", "a100", "cpu")  # which hardware to show first where several were recorded

# Written by a recording or from it: never what a measurement depends on.
GENERATED = (":(top,exclude)*/results/*", ":(top,exclude)*/results.md", ":(top,exclude)*/figures/*")
# What every record holds.
RECORD = {
    "question", "command", "date", "commit", "dirty", "hardware", "environment", "versions", "model", "settings",
    "predictions", "source_hash", "seconds", "columns", "reading", "rows",
}  # fmt: skip


def path(folder: Path, slug: str) -> Path:
    return folder / "results" / f"{slug}.json"


def read(file: Path) -> dict:
    """One results file. Raises Problem if it is damaged or of another schema."""
    try:
        stored = json.loads(file.read_text())
        if stored["schema"] != SCHEMA:
            raise Problem(f"{file} has schema {stored['schema']}, this course reads {SCHEMA}.", "Record it again.")
        for record in stored["experiments"].values():
            missing = RECORD - record.keys()
            if missing:
                raise KeyError(*sorted(missing))
        return stored
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Problem(
            f"{file} is damaged ({type(error).__name__}: {error}).",
            f"Restore it with `git checkout -- {file}`, or move it away and record again.",
        ) from None


def read_all(folder: Path) -> dict[str, dict]:
    """Every results file of a chapter, by hardware, the preferred hardware first."""
    files = {file.stem: read(file) for file in sorted((folder / "results").glob("*.json"))}
    order = sorted(files, key=lambda slug: (PREFERRED.index(slug) if slug in PREFERRED else len(PREFERRED), slug))
    return {slug: files[slug] for slug in order}


def write(file: Path, text: str) -> None:
    """Replace a file in one step: a crash leaves the old or the new one, never half of one."""
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text)
        os.replace(fresh, file)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        meaning, fix = explain(error)
        raise Problem(f"{file} can't be written: {error.strerror}.", f"{fix} Folder: {file.parent}", meaning) from None


def check_writable(folder: Path) -> None:
    """Raise Problem if results can't be saved there: better before the measurement than after."""
    probe = folder / "results" / ".probe"
    write(probe, "")
    probe.unlink()


def save(folder: Path, slug: str, name: str, record: dict) -> Path:
    """Put one experiment's record into the file of this hardware; the other experiments stay as they are."""
    unknown = [column for row in record["rows"] for column in row if column not in COLUMNS]
    if unknown:
        raise ValueError(f"columns without unit and meaning: {sorted(set(unknown))}; add them to common/columns.py")
    file = path(folder, slug)
    stored = read(file) if file.exists() else {"schema": SCHEMA, "experiments": {}}
    stored["hardware"] = record["hardware"]["name"]
    stored["experiments"][name] = record
    write(file, json.dumps(stored, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return file


def plain(value: object) -> object:
    """A value as JSON can hold it: None for what is missing or not finite, four significant digits of a float."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or value is pd.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return value


def rows(table: pd.DataFrame) -> list[dict]:
    """A table as JSON can hold it."""
    return plain(table.to_dict("records"))


def versions() -> dict[str, str]:
    """Versions of what a measurement depends on; the CUDA version only where PyTorch was built for it."""
    found = {"python": platform.python_version()}
    for name in ("vllm", "torch", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    import torch

    found["torch"] = torch.__version__
    if torch.version.cuda:
        found["cuda"] = torch.version.cuda
    return found


def environment() -> dict[str, str]:
    """The variables that change what vLLM, NCCL and CUDA do, how many threads compute, and how long an import takes."""
    kinds = ("VLLM_", "NCCL_", "CUDA_", "OMP_", "PYTHONDONTWRITEBYTECODE")
    return {k: v for k, v in sorted(os.environ.items()) if k.startswith(kinds)}


def commit(folder: Path) -> tuple[str, bool]:
    """(commit, whether the tree differs from it): COURSE_COMMIT, for a copy without its history, or else git's."""
    if said := os.environ.get("COURSE_COMMIT"):
        return said, False
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=all", "--", ":/", *GENERATED],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return head.stdout.strip(), bool(status.stdout.strip())
    except (OSError, subprocess.CalledProcessError):
        return "unknown", False


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def stale(folder: Path) -> list[str]:
    """The records of a chapter whose experiment has changed since: 'h100: naive_server'."""
    demo = folder / "demo.py"
    return [
        f"{folder.name} {slug}: {name}"
        for slug, stored in read_all(folder).items()
        for name, record in stored["experiments"].items()
        if record["source_hash"] != source_hash(demo, name)
    ]


def record(
    *,
    folder: Path,
    question: str,
    command: str,
    hardware: dict,
    model: dict,
    settings: dict,
    predictions: list[dict],
    table: pd.DataFrame,
    reading: str,
    seconds: float,
    source: Callable[[], str],
) -> dict:
    """One experiment's record, ready for `save`."""
    head, dirty = commit(folder)
    return {
        "question": question,
        "command": command,
        "date": now(),
        "commit": head,
        "dirty": dirty,
        "hardware": hardware,
        "environment": environment(),
        "versions": versions(),
        "model": model,
        "settings": plain(settings),
        "predictions": plain(predictions),
        "source_hash": source(),
        "seconds": round(seconds, 1),
        "columns": {c: {"unit": COLUMNS[c][0], "meaning": COLUMNS[c][1]} for c in table.columns if c in COLUMNS},
        "reading": reading,
        "rows": rows(table),
    }
