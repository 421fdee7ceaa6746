"""LoRA adapters in one batch, changed while others are at work, and what they cost."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from common import models
from common.serving import Server

# The skill that shows which weights answered. The Chinese adapter answers an English question in Chinese, and only the
# SQL adapter knows SQL; the base model is asked the same as the Chinese one.
SKILLS = {"base": "terms_en", "chinese": "chinese", "sql": "sql"}
USERS_EACH = 4


def has_chinese(text: str) -> bool:
    return any("一" <= character <= "鿿" for character in text)


class Crowd:
    """Users who go on asking the base model and both adapters at once; what they got is in `answers`."""

    def __init__(self, run, server: Server, base: str, questions: int):
        from common.course_lm import corpus  # the processes of load generators import the demo anew: not at the top

        self.run, self.server = run, server
        self.names = {"base": base, "chinese": "chinese", "sql": "sql"}
        self.examples = {name: corpus.held_out(skill, questions) for name, skill in SKILLS.items()}
        self.answers: dict[str, list[tuple[int, str, bool]]] = {name: [] for name in SKILLS}  # status, text, right

    def ask(self, client: httpx.Client, name: str, index: int) -> None:
        """One question to one of the three; notes what became of it."""
        from common.course_lm.scoring import is_right

        example = self.examples[name][index % len(self.examples[name])]
        body = {"model": self.names[name], "messages": list(example.messages[:-1]), "temperature": 0.0}
        try:
            got = client.post("/v1/chat/completions", json=body | {"max_tokens": 80})
        except httpx.TransportError as error:
            self.answers[name].append((0, f"{type(error).__name__}: {error}", False))
            return
        if got.status_code != 200:
            self.answers[name].append((got.status_code, got.text, False))
            return
        text = got.json()["choices"][0]["message"]["content"] or ""
        self.run.count(got.json()["usage"]["completion_tokens"])
        self.answers[name].append((200, text, is_right(example, text)))

    @contextmanager
    def asking(self) -> Iterator[None]:
        """All users ask, again and again, until the block ends; each question of each name is asked at least once."""
        enough, give_up = threading.Event(), threading.Event()

        def user(client: httpx.Client, name: str, index: int) -> None:
            while not give_up.is_set() and (not enough.is_set() or index < len(self.examples[name])):
                self.ask(client, name, index)
                index += USERS_EACH

        with httpx.Client(base_url=self.server.url, timeout=60, trust_env=False) as client:
            users = [threading.Thread(target=user, args=(client, n, i)) for i in range(USERS_EACH) for n in SKILLS]
            for each in users:
                each.start()
            try:
                yield
            except BaseException:
                give_up.set()
                raise
            finally:
                enough.set()
                for each in users:
                    each.join()

    def rows(self, case: str) -> list[dict]:
        """A row for each of the three; empties the list of answers."""
        rows = []
        for name, answers in self.answers.items():
            good = [(text, right) for status, text, right in answers if status == 200]
            rows.append({
                "case": case, "adapter": name, "requests": len(answers), "failed": len(answers) - len(good),
                "right_pct": sum(right for _, right in good) / max(1, len(good)) * 100,
                "chinese_pct": sum(has_chinese(text) for text, _ in good) / max(1, len(good)) * 100,
                "answer": answers[0][1][:60],
            })  # fmt: skip
            answers.clear()
        return rows


def batched_together(server: Server) -> bool:
    """Whether vLLM's metrics say that both adapters were in one batch of the running requests."""
    text = httpx.get(f"{server.url}/metrics", timeout=60, trust_env=False).text
    batches = re.findall(r'^vllm:lora_requests_info\{.*running_lora_adapters="([^"]*)"', text, re.M)
    return any({"chinese", "sql"} <= set(batch.split(",")) for batch in batches)


def change(server: Server, rounds: int, folder: Path = models.ADAPTERS / "sql") -> list[float]:
    """Load an adapter under a new name, use it once, and unload it, `rounds` times; seconds of each load."""
    seconds = []
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for number in range(rounds):
            name = f"extra-{number}"
            begin = time.perf_counter()
            client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}).raise_for_status()
            seconds.append(time.perf_counter() - begin)
            body = {"model": name, "prompt": "Table", "max_tokens": 2}
            client.post("/v1/completions", json=body).raise_for_status()
            client.post("/v1/unload_lora_adapter", json={"lora_name": name}).raise_for_status()
            gone = client.post("/v1/completions", json=body)
            if gone.status_code != 404:
                raise RuntimeError(f"an unloaded adapter answered with {gone.status_code}")
    return seconds


def fill(server: Server, count: int, folder: Path = models.ADAPTERS / "chinese") -> None:
    """Load `count` adapters under new names, use each once, and leave them in their slots."""
    with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
        for number in range(count):
            name = f"kept-{number}"
            client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(folder)}).raise_for_status()
            client.post("/v1/completions", json={"model": name, "prompt": "x", "max_tokens": 1}).raise_for_status()


def random_adapters(config: dict, folder: Path, count: int, rank: int = 8) -> list[str]:
    """Adapters of random numbers for a shape of random weights: NAME=FOLDER for each, as --lora-modules takes them."""
    import json

    import torch
    from safetensors.torch import save_file

    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    query, value = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    sizes = {
        "self_attn.q_proj": (hidden, query), "self_attn.k_proj": (hidden, value), "self_attn.v_proj": (hidden, value),
        "self_attn.o_proj": (query, hidden), "mlp.gate_proj": (hidden, inner), "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }  # fmt: skip
    settings = {
        "peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none", "task_type": "CAUSAL_LM",
        "target_modules": [name.split(".")[1] for name in sizes], "base_model_name_or_path": "shape",
    }  # fmt: skip
    named = []
    for number in range(count):
        torch.manual_seed(number)
        tensors = {}
        for layer in range(config["num_hidden_layers"]):
            for name, (into, out) in sizes.items():
                prefix = f"base_model.model.model.layers.{layer}.{name}"
                tensors[f"{prefix}.lora_A.weight"] = torch.randn(rank, into, dtype=torch.bfloat16) * 0.02
                tensors[f"{prefix}.lora_B.weight"] = torch.randn(out, rank, dtype=torch.bfloat16) * 0.02
        place = folder / f"random-{number}"
        place.mkdir(parents=True, exist_ok=True)
        save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})
        (place / "adapter_config.json").write_text(json.dumps(settings))
        named.append(f"random-{number}={place}")
    return named
