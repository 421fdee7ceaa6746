"""The chapters of the course, and how their files are loaded: names such as 0.intro are no package names."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent


def chapters(root: Path = ROOT) -> list[Path]:
    """The folders of the chapters that exist, in order."""
    found = [demo.parent for demo in root.glob("[0-9]*.*/demo.py")]
    return sorted(found, key=lambda folder: int(folder.name.split(".")[0]))


def load(file: Path) -> ModuleType:
    """The module in a file, by path.

    It may import the other files of its folder by their plain names, as it does when it is run as a script. So no
    two chapters may have such a file of the same name (demo, exercises and solutions are never imported so).
    """
    name = f"{file.stem}_{file.parent.name}".replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and pickle look it up
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module
