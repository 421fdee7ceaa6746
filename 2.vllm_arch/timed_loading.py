"""vLLM's own loader of safetensors files with a clock in it, and a way to write such files for a random model.

Loading has five parts. The model is built: parameters of the engine's shapes, without values. The files are opened and
their headers parsed, which say where each tensor lies. The pages that it lies on are read. Its values are copied into a
parameter of the engine, or into a part of one: q_proj, k_proj and v_proj become qkv_proj, so that one matrix
multiplication replaces three. At the end some layers repack what they have for the processor's kernels.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from common import estimator, hardware, models, timing
from common.hardware import GIB, Machine
from common.shapes import SHAPES

PARTS = ("build_s", "open_s", "read_s", "copy_s", "post_process_s")
SHARD_BYTES = 4 * 10**9
PROBE_BYTES = 2**29
WRITTEN = ("qwen2.5-7b", "qwen2.5-3b", "qwen2.5-1.5b", "qwen2.5-0.5b")
SECONDS = 150


@dataclass
class Loading:
    """One load: seconds by part, and for each parameter of the engine its shape and what was copied into it."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    parameter_bytes: int = 0
    shapes_after: dict[str, tuple[int, ...]] = field(default_factory=dict)  # when the layers have repacked
    aliases: dict[str, str] = field(default_factory=dict)  # a second name -> the parameter that it is
    checkpoint: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of its tensors
    filled_with: dict[str, list[str]] = field(default_factory=dict)  # the names of these, in order
    equal: dict[str, bool] = field(default_factory=dict)  # whether it holds just their values, one below the other

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())


def drop_from_page_cache(folder: Path) -> None:
    """Make the kernel forget the weight files, so that the next load reads the disk. Without effect on a tmpfs."""
    for file in folder.glob("*.safetensors"):
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def load(folder: Path, dtype: str, compare: bool = False) -> Loading:
    """Load the checkpoint in `folder` once more, in a process where a vLLM engine runs; the model is dropped again.

    compare: also look whether each parameter of the engine holds the tensors of the checkpoint unchanged.
    """
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.engine.arg_utils import EngineArgs
    from vllm.model_executor.model_loader.default_loader import DefaultModelLoader

    loading = Loading()

    @contextmanager
    def clock(part: str) -> Iterator[None]:
        timing.synchronise()  # what the GPU still has to do belongs to the part before
        start = time.perf_counter()
        yield
        timing.synchronise()
        loading.seconds[part] += time.perf_counter() - start

    class TimedLoader(DefaultModelLoader):
        def create_model(self, *arguments, **options):
            with clock("build_s"):
                return super().create_model(*arguments, **options)

        def get_all_weights(self, model_config, model):
            tensors = iter(super().get_all_weights(model_config, model))
            while True:
                with clock("open_s"):
                    name, tensor = next(tensors, (None, None))
                if name is None:
                    return
                with clock("read_s"):  # tensors are mapped, not read: touch a byte of each page
                    tensor.view(torch.uint8).flatten()[::4096].sum()
                yield name, tensor

        def load_weights(self, model, model_config):
            with clock("copy_s"):
                super().load_weights(model, model_config)
            loading.seconds["copy_s"] -= loading.seconds["open_s"] + loading.seconds["read_s"]
            loading.shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
            loading.parameter_bytes = sum(parameter.nbytes for parameter in model.parameters())
            if compare:
                _compare(loading, model, dict(super().get_all_weights(model_config, model)))
            timing.synchronise()
            self.loaded_at = time.perf_counter()

    options = {"model": str(folder), "dtype": dtype, "enforce_eager": True, "max_model_len": 256}
    options["use_tqdm_on_load"] = False
    config = EngineArgs(**options).create_engine_config()
    loader = TimedLoader(config.load_config)
    with set_current_vllm_config(config):
        model = loader.load_model(vllm_config=config, model_config=config.model_config)
    timing.synchronise()
    loading.seconds["post_process_s"] = time.perf_counter() - loader.loaded_at
    loading.shapes_after = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    del model
    models.free_memory()
    return loading


def _compare(loading: Loading, model, checkpoint: dict) -> None:
    """Fill in what became of each tensor of the checkpoint, by the names that the model's class says it fuses."""
    import torch

    loading.checkpoint = {name: tuple(tensor.shape) for name, tensor in checkpoint.items()}
    packed = model.packed_modules_mapping  # {"qkv_proj": ["q_proj", "k_proj", "v_proj"], …}
    fused = {part: (whole, place) for whole, parts in packed.items() for place, part in enumerate(parts)}
    placed: dict[str, list[tuple[int, str]]] = {}
    for name in checkpoint:
        module = name.split(".")[-2]
        whole, place = fused.get(module, (module, 0))
        placed.setdefault(name.replace(f".{module}.", f".{whole}."), []).append((place, name))
    loading.filled_with = {name: [part for _, part in sorted(parts)] for name, parts in placed.items()}
    first_names: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if first_names.setdefault(id(parameter), name) != name:
            loading.aliases[name] = first_names[id(parameter)]
            continue
        parts = torch.cat([checkpoint[part] for part in loading.filled_with.get(name, [])])
        loading.equal[name] = torch.equal(parameter.cpu(), parts.to(parameter.dtype))


def compare_loads(name: str, folder: Path, dtype: str, repeats: int, say: Callable[[str], None]) -> list[dict]:
    """Two rows, the medians: the checkpoint in `folder` loaded from the disk and from the page cache, in turn.

    What a first load has to import was imported before by a load of course-lm.
    """
    load(models.COURSE_LM, dtype)
    loads: dict[str, list[Loading]] = {"cold": [], "warm": []}

    def measure(page_cache: str) -> float:
        say(f"loading {name}, page cache {page_cache}")
        if page_cache == "cold":
            drop_from_page_cache(folder)
        loads[page_cache].append(load(folder, dtype))
        return loads[page_cache][-1].total_s

    totals = timing.alternate({kind: lambda kind=kind: measure(kind) for kind in loads}, repeats, warmups=0)
    rows = []
    for kind, total in totals.items():
        median = min(loads[kind], key=lambda loading: abs(loading.total_s - total.median))
        row = {"loaded": f"{name}_{kind}", "checkpoint_gb": weight_bytes(folder) / 1e9} | median.seconds
        rows.append(row | {"load_s": total.median, "spread_pct": total.spread_pct})
    return rows


def weight_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def tensor_names(folder: Path) -> list[str]:
    """The names of all tensors of a checkpoint."""
    from safetensors import safe_open

    names = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            names += tensors.keys()
    return names


def fused_rows(loading: Loading) -> list[dict]:
    """A row for each parameter of the engine and each second name of one; those of all layers together in one row."""
    rows: dict[str, dict] = {}
    for name, shape in loading.shapes.items():
        kind, sources = short(name), loading.filled_with[name]
        if kind in rows:
            rows[kind]["layers"] += 1
            rows[kind]["equal"] &= loading.equal[name]
            continue
        rows[kind] = {
            "parameter": kind,
            "shape": shown(shape),
            "layers": 1,
            "made_of": ", ".join(source.split(".")[-2] for source in sources),
            "from_shapes": ", ".join(shown(loading.checkpoint[source]) for source in sources),
            "equal": loading.equal[name],
            "shape_ready": shown(loading.shapes_after[name]),
        }
    for name, other in loading.aliases.items():
        tied = {"made_of": f"tied: it is {short(other)}", "from_shapes": "", "equal": None}
        rows[name] = rows[short(other)] | {"parameter": short(name)} | tied
    return list(rows.values())


def short(name: str) -> str:
    """A parameter's name without what all of its kind begin and end with: self_attn.qkv_proj."""
    return re.sub(r"^model\.(layers\.\d+\.)?|\.weight$", "", name)


def shown(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def read_seconds(folder: Path) -> float:
    """Seconds to read all weight files from the disk, from front to back, and do nothing with them."""
    drop_from_page_cache(folder)
    buffer = bytearray(1 << 24)
    start = time.perf_counter()
    for file in folder.glob("*.safetensors"):
        with file.open("rb", buffering=0) as weights:
            while weights.readinto(buffer):
                pass
    return time.perf_counter() - start


def shape_to_load(folder: Path, machine: Machine) -> str:
    """The largest shape of WRITTEN whose checkpoint this machine can hold and load in time, or else the smallest.

    In time: SECONDS are enough to write it into `folder`, to read it front to back, and to load it from the disk three
    times. A load reads the pages as they are asked for, which may take twice as long. What a byte takes is tried with a
    file of half a GiB. It has to fit into the disk, the GPU's free memory and half of the main memory; on a CPU, which
    repacks it slowly, it is the smallest.
    """
    if not machine.gpus:
        return WRITTEN[-1]
    rooms = (shutil.disk_usage(folder).free, hardware.available_bytes() // 2, hardware.gpus()[0].free_bytes)
    probe, noise = folder / "probe.safetensors", os.urandom(2**24)
    start = time.perf_counter()
    with probe.open("wb") as file:
        for _ in range(PROBE_BYTES // len(noise)):
            file.write(noise)
        os.fsync(file.fileno())
    written_s = time.perf_counter() - start
    byte_s = (written_s + 7 * read_seconds(folder)) / PROBE_BYTES
    probe.unlink()
    room = min(min(rooms) - 4 * GIB, SECONDS / byte_s)
    return next((shape for shape in WRITTEN if estimator.weight_bytes(SHAPES[shape]) < room), WRITTEN[-1])


def write_checkpoint(shape_folder: Path, folder: Path, device: str) -> int:
    """Write `shape_folder` with weights drawn from N(0, 0.02), as a hub would hold them, into `folder`; their bytes.

    Names and shapes are those of Transformers' model of that config.json.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    shutil.copytree(shape_folder, folder, dirs_exist_ok=True)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(shape_folder))
    tied = set(network.all_tied_weights_keys)
    shards: list[list[tuple[str, torch.Size]]] = [[]]
    room = SHARD_BYTES
    for name, parameter in network.state_dict().items():
        if name in tied:
            continue
        size = parameter.numel() * 2
        if size > room and shards[-1]:
            shards.append([])
            room = SHARD_BYTES
        shards[-1].append((name, parameter.shape))
        room -= size
    files, total = {}, 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name, shape in shard:
            tensors[name] = torch.empty(shape, dtype=torch.bfloat16, device=device).normal_(0, 0.02).cpu()
            files[name], total = file, total + tensors[name].nbytes
        save_file(tensors, folder / file, {"format": "pt"})
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return total
