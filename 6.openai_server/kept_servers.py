"""The servers and load generators of this chapter, each started once and kept until the demo ends.

Starting takes longer than most experiments here. So the servers that the chosen experiments need start all at once,
each in a thread of its own: the kernel ends a server together with the thread that started it. An idle server takes
memory and no time. With --trace, a server's steps are in the file of the experiment that started it.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters_under_load import random_adapters
from bench_client import BenchClient

from common import estimator, load, models, serving, trace
from common.hardware import GIB
from common.serving import Server

ADAPTERS = ("chinese", "sql")
API_KEY = "a-key-that-only-this-demo-uses"
COURSE_LM = models.resolve("course-lm")
STRUCTURED = '{"backend": "xgrammar"}'  # named, so that it is not another one for a grammar that this one refuses


class KeptServer:
    """One server that runs until `end`; `wait` returns it, or raises what its start raised."""

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

    @property
    def is_starting(self) -> bool:
        """Whether it has neither started nor failed to."""
        return not self._ready.is_set()

    def started(self) -> None:
        """Wait until it has started, or failed to."""
        self._ready.wait()

    def wait(self) -> Server:
        self.started()
        if self._error:
            raise self._error
        self._server.check()
        return self._server

    def end(self) -> None:
        """Begin to end it. A server that is still starting ends when it has started, or with this process (Ctrl-C)."""
        self._stopping.set()

    def ended(self) -> None:
        """Wait until it has ended, if it ever started."""
        if self._ready.is_set():
            self._thread.join()


_kept: dict[str, KeptServer] = {}
_clients: dict[int, load.Clients] = {}  # by the number of their processes
_bench: list[BenchClient] = []  # at most one


@contextmanager
def closing() -> Iterator[None]:
    """Stops all that is kept at the end of the block, whatever ends it."""
    try:
        yield
    finally:
        for each in (*_clients.values(), *_bench):
            each.__exit__()
        _clients.clear()
        _bench.clear()
        close(*_kept)


def clients(users: int = 0, requests_per_s: float = 0.0) -> load.Clients:
    """Client processes for so many users, or that rate; the next experiment that needs as many gets the same ones."""
    needed = load.processes(users, requests_per_s)
    if needed not in _clients:
        _clients[needed] = load.Clients(needed)
    return _clients[needed]


def bench() -> BenchClient:
    """`vllm bench serve` in a process that has begun to import it."""
    if not _bench:
        _bench.append(BenchClient())
    return _bench[0]


def close(*names: str) -> None:
    """Stop these servers, to give their memory back; those that do not run are skipped."""
    ending = [_kept.pop(name) for name in names if name in _kept]
    for server in ending:
        server.end()
    for server in ending:
        server.ended()


def start(run, name: str) -> None:
    """Begin to start the server of that name, unless it is kept already."""
    if name in _kept:
        return
    model, options, arguments = SERVERS[name](run)
    if run.options.trace:
        arguments["scheduler_cls"] = trace.SCHEDULER
    # The first request with log-probabilities compiles for some seconds, on a CPU where nothing else is compiled.
    environment = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"} | ({} if run.machine.gpus else {"TORCHDYNAMO_DISABLE": "1"})
    log = run.logs / f"server-{name}.log"
    _kept[name] = KeptServer(model, run.machine, log, *options, environment=environment, **arguments)


def kept(run, name: str) -> Server:
    """The server of that name, ready to answer. Raises what its start raised, and Problem if it has ended since.

    The first call starts whatever the chosen experiments need, and each waits until nothing is starting any more:
    nothing is measured beside a start.
    """
    if not _kept and not run.options.resume:  # which experiments a resumed run skips is known only as it goes
        start_all(run)
    start(run, name)
    if starting := [each for each, server in _kept.items() if server.is_starting]:
        run.step(f"starting vllm serve ({', '.join(starting)})")
        for each in starting:
            _kept[each].started()
        run.step("vllm serve is ready")
    for each in _bench:
        each.ready()
    try:
        return _kept[name].wait()
    except Exception:
        close(name)  # the next experiment tries afresh
        raise


def start_all(run) -> None:
    """Begin to start the servers that the chosen experiments need, and meanwhile to import what takes long."""
    names = needed(run)
    for name in names:
        start(run, name)
    if is_chosen(run, "load"):
        bench()
    if names and run.machine.gpus and is_chosen(run, "multimodal"):
        import vllm.entrypoints.llm  # noqa: F401, its engine is in this process, which only waits for servers now


def is_chosen(run, experiment: str) -> bool:
    """Whether this run of the demo has that experiment."""
    return experiment in (run.options.only or [experiment])


# ------------------------------------------------------------------ what each server is: (model, words, engine options)


def _features(run) -> tuple[models.Model, list[str], dict[str, object]]:
    """course-lm with adapters, tool calls and constraints: for the experiments whose answers count."""
    words = ["--enable-auto-tool-choice", "--tool-call-parser", "hermes", "--structured-outputs-config", STRUCTURED]
    words += ["--lora-modules", *(f"{name}={models.ADAPTERS / name}" for name in ADAPTERS)]
    return COURSE_LM, [*words, "--enable-prompt-tokens-details"], small(run) | lora_options(slots(run))


def _pooling(run) -> tuple[models.Model, list[str], dict[str, object]]:
    """course-lm as an embedding model, behind a key."""
    return COURSE_LM, ["--runner", "pooling", "--convert", "embed", "--api-key", API_KEY], small(run)


def _plain(run) -> tuple[models.Model, list[str], dict[str, object]]:
    """The model for speed, as it comes."""
    return run.model, ["--structured-outputs-config", STRUCTURED], of_speed(run)


def _adapted(run) -> tuple[models.Model, list[str], dict[str, object]]:
    """The model for speed with two adapters: course-lm's own, or random ones that fit another model's shape."""
    named = [f"{name}={models.ADAPTERS / name}" for name in ADAPTERS]
    if run.model.name != "course-lm":
        named = random_adapters(run.model.config, run.logs / "adapters", len(ADAPTERS))
    return run.model, ["--lora-modules", *named], of_speed(run) | lora_options(len(ADAPTERS))


def adapted_name(run) -> str:
    """Which server has adapters for this run's model; without a GPU "features" is as good, and there already."""
    return "adapted" if run.machine.gpus or run.model.name != "course-lm" else "features"


def adapter_names(run) -> list[str]:
    """The names under which that server has them."""
    return list(ADAPTERS) if run.model.name == "course-lm" else [f"random-{i}" for i in range(len(ADAPTERS))]


def two_fit(run) -> bool:
    """Whether two servers of this run's model fit its GPU side by side."""
    return models.two_fit(run.model, run.machine, share=0.5)


def needed(run) -> list[str]:
    """The servers that the chosen experiments will ask for."""
    spared = () if adapted_name(run) == "adapted" and two_fit(run) else ("adapted",)
    chosen = run.options.only
    return [name for name, by in ASKED_BY.items() if name not in spared and (not chosen or by & set(chosen))]


def weight_bytes(run) -> int:
    """Bytes of the weights of this run's model."""
    return estimator.weight_bytes(run.model.config, models.dtype(run.machine))


def small(run) -> dict[str, object]:
    """Engine options of a server whose speed is not measured: ready soon, and little memory."""
    options = {"enforce_eager": True, "enable_prefix_caching": False, "kv_cache_memory_bytes": models.CPU_KV_BYTES}
    # On a GPU vLLM wants that share to be free, also where the size of the KV cache is given.
    return options | ({"gpu_memory_utilization": 0.05} if run.machine.gpus else {})


def slots(run) -> int:
    """Slots of the server whose adapters change: an adapter that is unloaded keeps its slot until another needs it.

    And one slot more, for on a CPU vLLM 0.32 gives base requests the adapter in the last slot.
    """
    return run.size(full=11, smoke=4)


def lora_options(slots: int) -> dict[str, object]:
    """Engine options for so many adapters in one batch."""
    return {"enable_lora": True, "max_loras": slots, "max_lora_rank": 8}


def of_speed(run) -> dict[str, object]:
    """Engine options of a server whose speed is measured: no figure may come from the prefix cache."""
    options: dict[str, object] = {"enable_prefix_caching": False}
    if not run.machine.gpus:
        return options
    # Two of them share a GPU: 8 GiB of KV cache for each, or what is left beside the weights.
    total, weights = run.machine.gpus[0].total_bytes, weight_bytes(run)
    kv_cache = int(min(8 * GIB, max(total / 2 - weights - 5 * GIB, GIB)))
    share = round((weights + kv_cache + 2 * GIB) / total, 2)
    return options | {"kv_cache_memory_bytes": kv_cache, "gpu_memory_utilization": share, "max_num_seqs": 256}


SERVERS = {"features": _features, "pooling": _pooling, "plain": _plain, "adapted": _adapted}
ASKED_BY = {
    "features": {"endpoints", "tools", "structured", "lora", "bad_requests"},
    "pooling": {"endpoints", "bad_requests"},
    "plain": {"streaming", "load", "open_and_closed", "structured_cost", "lora_cost"},
    "adapted": {"lora_cost"},
}
