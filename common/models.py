"""From `--model` to something that generates: a vLLM engine, or a Transformers model.

Three kinds of name: `course-lm` (trained, shipped), `shape:NAME` (a published shape, random weights), and a
hub name or a folder. Nothing is loaded before `preflight` has said that it fits.
"""

import difflib
import gc
import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from common import estimator
from common.hardware import GIB, Machine, available_bytes
from common.problems import Problem
from common.shapes import SHAPES, TIERS

COURSE_LM = Path(__file__).parent / "course_lm" / "model"
DRAFT = Path(__file__).parent / "course_lm" / "draft"
ADAPTERS = Path(__file__).parent / "course_lm" / "adapters"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "vllm-course"
CPU_KV_BYTES = GIB // 2  # unset, vLLM would take 92 % of the main memory and half a minute


@dataclass(frozen=True)
class Model:
    """A resolved model: its name, the folder or hub name that engines take, and where its weights come from."""

    name: str
    path: str
    weights: str  # "trained", "random" or "published"

    @cached_property
    def config(self) -> dict:
        """config.json as a dict; the text part of it for a multi-modal model."""
        config_file = Path(self.path) / "config.json"
        if not config_file.exists():
            config_file = Path(_from_hub(self.path, "config.json"))
        try:
            config = json.loads(config_file.read_text())
            return config.get("text_config", config)
        except (ValueError, AttributeError) as error:
            raise Problem(f"{config_file} is damaged ({error}).", "Fetch or write that file again.") from None

    @cached_property
    def weights_id(self) -> str:
        """'random', the hub name, or the first 16 digits of the SHA-256 of the weight files."""
        if self.weights == "random" or not Path(self.path).is_dir():
            return "random" if self.weights == "random" else self.path
        digest = hashlib.sha256()
        for file in sorted(Path(self.path).glob("*.safetensors")):
            digest.update(file.read_bytes())
        return digest.hexdigest()[:16]


def resolve(name: str) -> Model:
    """The model of that name. Raises Problem for a name that is neither ours, nor a folder, nor on the hub."""
    if name == "course-lm":
        return Model(name, str(COURSE_LM), "trained")
    if name.startswith("shape:"):
        if name.removeprefix("shape:") not in SHAPES:
            raise Problem(f"There is no {name}.", "The shapes are: " + ", ".join(f"shape:{s}" for s in SHAPES) + ".")
        return Model(name, str(_shape_folder(name.removeprefix("shape:"))), "random")
    if Path(name).is_dir():
        if not (Path(name) / "config.json").exists():
            raise Problem(f"The folder {name} holds no config.json.", "Name the folder that holds the model's files.")
        return Model(name, name, "published")
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise Problem(f"There is no folder {name}.", "Check the path, or take course-lm, shape:NAME or a hub name.")
    if "/" not in name:
        known = ["course-lm", *(f"shape:{shape}" for shape in SHAPES)]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
        hint = f"Did you mean {near[0]}? " if near else ""
        raise Problem(
            f"There is no model {name}.",
            hint + "Take course-lm, shape:NAME, a folder, or a hub name such as Qwen/Qwen3-8B.",
        )
    os.environ.pop("HF_HUB_OFFLINE", None)
    _from_hub(name, "config.json")
    return Model(name, name, "published")


def _from_hub(name: str, file: str) -> str:
    """Path of one file of a hub model, fetched if need be (ModelScope where VLLM_USE_MODELSCOPE=1)."""
    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):
        from modelscope import snapshot_download

        return str(Path(snapshot_download(name, allow_patterns=[file])) / file)
    import httpx
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        with suppress(LocalEntryNotFoundError):
            return hf_hub_download(name, file, local_files_only=True)
        httpx.head(constants.ENDPOINT, timeout=10)  # the hub's own client would try for half a minute
        return hf_hub_download(name, file)
    except HFValidationError:
        raise Problem(
            f"There is no folder {name}, and it can't be a hub name.", "Check the path; a hub name is OWNER/MODEL."
        ) from None
    except RepositoryNotFoundError:
        raise Problem(
            f"The hub has no model {name}, or it is private.",
            "Check the spelling on the hub's page; for a gated model log in with `hf auth login`.",
        ) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise Problem(
            f"{name} is not on this disk and the hub could not be reached ({type(error).__name__}).",
            "Without a network take course-lm or shape:NAME; behind a firewall set HF_ENDPOINT to a mirror.",
        ) from None


def _shape_folder(shape: str) -> Path:
    """A folder with the shape's config.json and a tokenizer that names every token id; made once."""
    folder = CACHE / "shapes" / shape
    config = SHAPES[shape] | {"dtype": "bfloat16", "bos_token_id": None, "eos_token_id": None}
    parts = (COURSE_LM / "tokenizer.json").read_bytes(), json.dumps(config).encode(), Path(__file__).read_bytes()
    made_from = hashlib.sha256(b"".join(parts)).hexdigest()
    stamp = folder / "made_from"
    if stamp.exists() and stamp.read_text() == made_from:
        return folder
    fresh = folder.with_name(f"{shape}.{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "config.json").write_text(json.dumps(config, indent=1))
    tokenizer = json.loads((COURSE_LM / "tokenizer.json").read_text())
    vocab = tokenizer["model"]["vocab"]
    # An added token that the vocabulary lacks would get the id after its last one instead of its own.
    vocab.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    taken = set(vocab.values())
    # Random weights choose ids from the whole vocabulary, so each needs a text to be shown as.
    vocab.update({f"<{index}>": index for index in range(config["vocab_size"]) if index not in taken})
    (fresh / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        if (COURSE_LM / name).exists():
            shutil.copy(COURSE_LM / name, fresh)
    (fresh / "made_from").write_text(made_from)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)
    return folder


def speed_model(machine: Machine) -> tuple[Model, str]:
    """The model for a speed experiment on this machine, and in words why this one."""
    if not machine.gpus:
        return resolve("course-lm"), "no GPU: course-lm, small enough for a CPU"
    free = min(gpu.free_bytes for gpu in machine.gpus) / 1e9
    for need, shape in TIERS:
        if free >= need:
            return resolve(f"shape:{shape}"), f"{free:.0f} GB of GPU memory are free; {shape} asks for {need:.0f} GB"
    return resolve("course-lm"), f"only {free:.1f} GB of GPU memory are free: course-lm"


def dtype(machine: Machine) -> str:
    """bfloat16, or float16 on GPUs older than Ampere, which have no bf16 units."""
    return "float16" if machine.gpus and machine.gpus[0].compute_capability < (8, 0) else "bfloat16"


def preflight(model: Model, machine: Machine, tokens: int = 2048) -> estimator.Fit | None:
    """Raise Problem if weights and `tokens` tokens of KV cache can't fit; None for a shape we can't count."""
    counted = model.config.get("model_type") in ("qwen2", "qwen3", "llama", "mistral")
    if not counted or "quantization_config" in model.config:
        return None
    available = machine.gpus[0].free_bytes if machine.gpus else available_bytes()
    fit = estimator.fit(model.config, available, tokens)
    if not fit.fits:
        where = "GPU memory" if machine.gpus else "main memory"
        raise Problem(
            f"{model.name} needs {fit.needed / GIB:.1f} GiB (weights {fit.weights / GIB:.1f}, KV cache for {tokens} "
            f"tokens {fit.kv_cache / GIB:.1f}, overhead {fit.overhead / GIB:.1f}); {fit.available / GIB:.1f} GiB of "
            f"{where} are free.",
            f"Take a smaller one: --model {speed_model(machine)[0].name}",
        )
    return fit


def two_fit(model: Model, machine: Machine, share: float) -> bool:
    """Whether two vLLM engines of this model fit side by side, each with that share of the GPU; True without a GPU.

    Beside the weights an engine needs room for activations, CUDA graphs and at least some KV cache.
    """
    weights = estimator.weight_bytes(model.config, dtype(machine))
    return not machine.gpus or share * machine.gpus[0].total_bytes >= 1.3 * weights + 4e9


def engine_options(model: Model, machine: Machine, **options: object) -> dict[str, object]:
    """The arguments that every vLLM engine of the course gets, `options` over them."""
    arguments: dict[str, object] = {"model": model.path, "dtype": dtype(machine), "max_model_len": 2048}
    if model.weights == "random":
        arguments["load_format"] = "dummy"
    if not machine.gpus:
        arguments |= {"enforce_eager": True, "kv_cache_memory_bytes": CPU_KV_BYTES}
    return arguments | options


_running: tuple[str, object] | None = None  # the arguments of the engine that is up, and the engine


def engine(model: Model, machine: Machine, **options: object):
    """A `vllm.LLM`. The last one is given back if its arguments are the same, and shut down if not."""
    global _running
    arguments = engine_options(model, machine, **options)
    key = json.dumps(arguments, sort_keys=True, default=str)
    if _running and _running[0] == key:
        return _running[1]
    close_engine()
    preflight(model, machine, tokens=int(arguments["max_model_len"]))
    if not machine.gpus:
        # One process instead of three: ready in 9 s instead of 29.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    from vllm import LLM

    llm = LLM(**arguments, disable_log_stats=False, use_tqdm_on_load=False)
    _running = (key, llm)
    return llm


def close_engine() -> None:
    """Shut the running engine down and give its memory back; nothing if none runs."""
    global _running
    if _running is None:
        return
    llm, _running = _running[1], None
    llm.llm_engine.engine_core.shutdown()
    del llm
    free_memory()


def free_memory() -> None:
    """Give unused memory of this process back to the GPU."""
    import torch

    gc.collect()
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def transformers_model(model: Model, machine: Machine):
    """(model, tokenizer) of Transformers on the GPU or CPU, in the same dtype as the engine's."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if machine.gpus else "cpu"
    precision = getattr(torch, dtype(machine))
    if model.weights == "random":
        with torch.device(device):
            network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model.path), dtype=precision)
    else:
        network = AutoModelForCausalLM.from_pretrained(model.path, dtype=precision).to(device)
    tokenizer = AutoTokenizer.from_pretrained(model.path, padding_side="left")
    return network.eval(), tokenizer
