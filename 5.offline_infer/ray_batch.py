"""The same job on Ray Data: blocks of prompts go to workers, each with a vLLM engine of its own.

    python 5.offline_infer/ray_batch.py prompts.jsonl answers.jsonl --workers 2

Ray reads the file, cuts it into blocks, starts the workers, gives each a block whenever it is free, and starts a worker
that died again. Here it runs on one machine. `--address` takes a Ray that runs there already; on a cluster of several
machines the share of a GPU for each worker would have to be counted from all of them. The last line on standard output
is a JSON object with the times. Prompts are lines with `messages`, as for batch_runner.py.
"""

import argparse
import ctypes
import gc
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from common import hardware, models, serving

KV_BYTES = 2**30  # of each worker on a shared GPU: given, so that none measures memory while another takes it


class Worker:
    """One vLLM engine. Ray makes an object of this class in each worker process, and calls it with blocks."""

    def __init__(self, model: str, share: float, max_tokens: int, cores: str):
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # this process is a worker already
        machine, options = hardware.machine(), {"enforce_eager": True}
        if machine.gpus:
            if share < 1:
                options |= {"kv_cache_memory_bytes": KV_BYTES, "gpu_memory_utilization": 0.6 * share}
        else:
            os.environ["VLLM_CPU_OMP_THREADS_BIND"] = str(own_core(Path(cores)))
        from vllm import LLM, SamplingParams  # noqa: F401

        gc.freeze()  # a start of vLLM would look through all that is imported several times
        self.llm = models.engine(models.resolve(model), machine, **options)
        self.sampling = SamplingParams(temperature=0.0, max_tokens=max_tokens)
        warm_up(self.llm, self.sampling)
        self.ready_s = time.time()

    def __call__(self, block: dict) -> dict:
        """Columns of prompts in, columns of answers out."""
        messages = [json.loads(text) for text in block["messages"]]
        began = time.time()
        outputs = self.llm.chat(messages, self.sampling, use_tqdm=False)
        count = len(messages)
        return {
            "line": block["line"],
            "answer": [output.outputs[0].text for output in outputs],
            "output_tokens": [len(output.outputs[0].token_ids) for output in outputs],
            "worker": [os.getpid()] * count,
            "ready_s": [self.ready_s] * count,
            "began_s": [began] * count,
            "ended_s": [time.time()] * count,
        }


def warm_up(llm, sampling) -> None:
    """What an engine does at its first answers alone, such as compiling kernels, before it is ready."""
    llm.chat([[{"role": "user", "content": "Hello"}]] * 8, sampling, use_tqdm=False)


def own_core(folder: Path) -> int:
    """A core for this worker alone, as long as there are enough: the first that nobody has put a file for."""
    cores = sorted(os.sched_getaffinity(0))
    for core in cores:
        try:
            (folder / str(core)).touch(exist_ok=False)
            return core
        except FileExistsError:
            continue
    return cores[os.getpid() % len(cores)]


def answer(prompts: Path, answers: Path, model: str, workers: int, max_tokens: int, block: int, address: str) -> dict:
    """Run the job; returns seconds from the start of Ray, and what each worker did."""
    import ray
    from ray.data import ActorPoolStrategy

    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets lie in it, whose paths may not be long
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    start = time.time()
    try:
        # Two logical cores more than workers: the tasks that read and cut need some, and would wait for ever.
        gpus = len(hardware.machine().gpus)
        counted = {"num_cpus": workers + 2, "num_gpus": gpus}  # given: what Ray fails to see, workers would wait for
        local = {} if address else counted | {"include_dashboard": False, "_temp_dir": str(folder)}
        ray.init(address=address or "local", log_to_driver=False, **local)
        ray.data.DataContext.get_current().enable_progress_bars = False
        with prompts.open() as lines:
            asked = [json.loads(line)["messages"] for line in lines]
        rows = [{"line": number, "messages": json.dumps(messages)} for number, messages in enumerate(asked, 1)]
        share = min(1.0, gpus / workers)  # of a GPU, for each worker
        needs = {"num_gpus": share} if gpus else {"num_cpus": 1}
        work = ray.data.from_items(rows, override_num_blocks=-(-len(rows) // block)).map_batches(
            Worker,
            fn_constructor_args=(model, share, max_tokens, str(folder)),
            batch_size=block,
            compute=ActorPoolStrategy(size=workers),
            **needs,
        )
        found = sorted(work.take_all(), key=lambda row: row["line"])
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    with answers.open("w") as output:
        for row in found:
            line = {name: row[name] for name in ("line", "answer", "output_tokens")}
            output.write(json.dumps(line, ensure_ascii=False) + "\n")
    began, ended = min(row["began_s"] for row in found), max(row["ended_s"] for row in found)
    return {
        "start_s": began - start,
        "answer_s": ended - began,
        "output_tokens": sum(row["output_tokens"] for row in found),
        "workers": len({row["worker"] for row in found}),
    }


def main() -> None:
    ctypes.CDLL(None).prctl(serving.PR_SET_PDEATHSIG, signal.SIGTERM)  # never outlive the demo
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--model", default="course-lm")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--block", type=int, default=64, help="prompts that a worker gets at a time")
    parser.add_argument("--address", default="", help="of a Ray that runs here already; without it one starts")
    options = parser.parse_args()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    print(json.dumps(answer(**vars(options))))


if __name__ == "__main__":
    main()
