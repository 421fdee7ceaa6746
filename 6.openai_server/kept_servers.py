"""The servers of this chapter, each started once and kept until the demo ends.

Starting takes longer than most experiments here. So a server is started when it is first asked for, in a thread of its
own: two can start at once, and the kernel, which ends a server together with the thread that started it, leaves it
alone as long as it is kept. An idle server takes memory and no time. With --trace, a server's steps are in the file of
the experiment that asked for it first.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters_under_load import random_adapters

from common import estimator, models, serving, trace
from common.hardware import GIB
from common.serving import Server

ADAPTERS = ("chinese", "sql")
# Of the server whose adapters change: one that is unloaded keeps its slot until another needs it. And a slot more, for
# on a CPU vLLM 0.32 gives base requests the adapter in the last slot.
SLOTS = 11
API_KEY = "a-key-that-only-this-demo-uses"
STRUCTURED = '{"backend": "xgrammar"}'  # named, so that it is not another one for a grammar that this one refuses


class KeptServer:
    """One server that runs until `stop`; `wait` returns it, or raises what its start raised."""

    def __init__(self, model: models.Model, machine, log: Path, *options: str, **arguments: object):
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._server: Server | None = None
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(model, machine, log, options, arguments), daemon=True)
        self._thread.start()

    def _run(self, model: models.Model, machine, log: Path, options: tuple, arguments: dict) -> None:
        try:
            with serving.serve(model, machine, log, *options, **arguments) as self._server:
                self._ready.set()
                self._stopping.wait()
        except Exception as error:  # it is raised again in the experiment that waits for the server
            self._error = error
        finally:
            self._ready.set()

    def started(self) -> None:
        """Wait until it has started, or failed to."""
        self._ready.wait()

    def wait(self) -> Server:
        self.started()
        if self._error:
            raise self._error
        self._server.check()
        return self._server

    def stop(self) -> None:
        """End the server. One that is still starting ends when it has started, or with this process (Ctrl-C)."""
        self._stopping.set()
        if self._ready.is_set():
            self._thread.join()


_kept: dict[str, KeptServer] = {}


@contextmanager
def closing() -> Iterator[None]:
    """Stops all kept servers at the end of the block, whatever ends it."""
    try:
        yield
    finally:
        close(*_kept)


def close(*names: str) -> None:
    """Stop these servers, to give their memory back; those that do not run are skipped."""
    for name in names:
        if name in _kept:
            _kept.pop(name).stop()


def start(run, name: str, model: models.Model | None = None) -> None:
    """Begin to start the server of that name, unless it is kept already; `model` instead of this run's own."""
    if name in _kept:
        return
    model, options, arguments = SERVERS[name](run, model or run.model)
    if run.options.trace:
        arguments["scheduler_cls"] = trace.SCHEDULER
    # The first request with log-probabilities compiles for some seconds, on a CPU where nothing else is compiled.
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} | ({} if run.machine.gpus else {"TORCHDYNAMO_DISABLE": "1"})
    log = run.logs / f"server-{name}.log"
    _kept[name] = KeptServer(model, run.machine, log, *options, environment=environment, **arguments)


def kept(run, name: str) -> Server:
    """The server of that name, ready to answer. Raises what its start raised, and Problem if it has ended since.

    By then no other one is starting: nothing is measured beside a start.
    """
    start(run, name)
    run.step(f"starting vllm serve ({name})")
    for server in _kept.values():
        server.started()
    try:
        return _kept[name].wait()
    except Exception:
        close(name)  # the next experiment tries afresh
        raise


# ------------------------------------------------------------------ what each server is: (model, words, engine options)


def _features(run, model: models.Model) -> tuple[models.Model, list[str], dict[str, object]]:
    """course-lm with adapters, tool calls and constraints: for the experiments whose answers count."""
    words = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--structured-outputs-config", STRUCTURED]
    words += ["--lora-modules", *(f"{name}={models.ADAPTERS / name}" for name in ADAPTERS)]
    return model, [*words, "--enable-prompt-tokens-details"], small(run) | lora_options(SLOTS)


def _pooling(run, model: models.Model) -> tuple[models.Model, list[str], dict[str, object]]:
    """course-lm as an embedding model, behind a key."""
    return model, ["--runner", "pooling", "--convert", "embed", "--api-key", API_KEY], small(run)


def _plain(run, model: models.Model) -> tuple[models.Model, list[str], dict[str, object]]:
    """The model for speed, as it comes."""
    return model, ["--structured-outputs-config", STRUCTURED], of_speed(run, model)


def _adapted(run, model: models.Model) -> tuple[models.Model, list[str], dict[str, object]]:
    """The model for speed with two adapters: course-lm's own, or random ones that fit another model's shape."""
    named = [f"{name}={models.ADAPTERS / name}" for name in ADAPTERS]
    if model.name != "course-lm":
        named = random_adapters(model.config, run.logs / "adapters", len(ADAPTERS))
    return model, ["--lora-modules", *named], of_speed(run, model) | lora_options(len(ADAPTERS))


def adapted_name(run) -> str:
    """Which server has adapters for this run's model; without a GPU "features" is as good, and there already."""
    return "adapted" if run.machine.gpus or run.model.name != "course-lm" else "features"


def adapter_names(run) -> list[str]:
    """The names under which that server has them."""
    return list(ADAPTERS) if run.model.name == "course-lm" else [f"random-{i}" for i in range(len(ADAPTERS))]


def two_fit(run) -> bool:
    """Whether two servers of this run's model fit its GPU side by side."""
    gpus = run.machine.gpus
    return not gpus or 2 * (weight_bytes(run, run.model) + 5 * GIB) <= gpus[0].total_bytes


def for_speed(run) -> tuple[str, ...]:
    """The servers of this run's model: those that later experiments will ask for."""
    return ("plain", "adapted") if adapted_name(run) == "adapted" and two_fit(run) else ("plain",)


def weight_bytes(run, model: models.Model) -> int:
    return estimator.weight_bytes(model.config, models.dtype(run.machine))


def small(run) -> dict[str, object]:
    """Engine options of a server whose speed is not measured: ready soon, and little memory."""
    options = {"enforce_eager": True, "enable_prefix_caching": False, "kv_cache_memory_bytes": models.CPU_KV_BYTES}
    # On a GPU vLLM wants that share to be free, also where the size of the KV cache is given.
    return options | ({"gpu_memory_utilization": 0.05} if run.machine.gpus else {})


def lora_options(slots: int) -> dict[str, object]:
    """Engine options for so many adapters in one batch."""
    return {"enable_lora": True, "max_loras": slots, "max_lora_rank": 8}


def of_speed(run, model: models.Model) -> dict[str, object]:
    """Engine options of a server whose speed is measured: no figure may come from the prefix cache."""
    options: dict[str, object] = {"enable_prefix_caching": False}
    if not run.machine.gpus:
        return options
    # Two of them share a GPU: 8 GiB of KV cache for each, or what is left beside the weights.
    total, weights = run.machine.gpus[0].total_bytes, weight_bytes(run, model)
    kv_cache = int(min(8 * GIB, max(total / 2 - weights - 5 * GIB, GIB)))
    share = round((weights + kv_cache + 2 * GIB) / total, 2)
    return options | {"kv_cache_memory_bytes": kv_cache, "gpu_memory_utilization": share, "max_num_seqs": 256}


SERVERS = {"features": _features, "pooling": _pooling, "plain": _plain, "adapted": _adapted}
