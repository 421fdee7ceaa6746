"""A vision-language model's exact shape with random weights: its files, its images, and where a prompt's time goes.

Values are those of config.json and preprocessor_config.json of Qwen/Qwen2.5-VL-7B-Instruct and -3B-Instruct on the hub.
What an image costs depends on its size alone, not on what it shows, so random weights and random pixels will do.
"""

import base64
import io
import json
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from common import estimator, models, timing
from common.hardware import GIB
from common.problems import NotOnThisMachine, Problem
from common.shapes import SHAPES

PATCH = 28  # pixels of one token's side: patches of 14, merged two by two
MOST_PIXELS = 1792 * 1792  # the largest image here; the published limit is four times that
# Tokens by which the model knows an image. The ids are those of Qwen2.5-VL.
SPECIAL = {"<|vision_start|>": 151652, "<|vision_end|>": 151653, "<|image_pad|>": 151655, "<|video_pad|>": 151656}
TEMPLATE = """{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content -%}
{% if part.type == 'text' %}{{ part.text }}{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}
{%- endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
PREPROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor", "patch_size": 14,
    "temporal_patch_size": 2, "merge_size": 2, "min_pixels": 3136, "max_pixels": 12845056,
    "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
}  # fmt: skip
KV_CACHE_BYTES = 2 * GIB  # four sequences of 8,192 tokens take 1.75 GiB with the larger shape
# (free GPU memory that it needs in GB, the shape of its language model)
TIERS = ((30.0, "qwen2.5-7b"), (16.0, "qwen2.5-3b"))


def config(text_shape: str) -> dict:
    """config.json of Qwen2.5-VL around a language model of this shape."""
    text = SHAPES[text_shape]
    vision = {
        "model_type": "qwen2_5_vl", "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420,
        "num_heads": 16, "in_channels": 3, "in_chans": 3, "out_hidden_size": text["hidden_size"], "patch_size": 14,
        "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2, "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2,
    }  # fmt: skip
    return text | {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "max_position_embeddings": 128000,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "vision_start_token_id": SPECIAL["<|vision_start|>"],
        "vision_end_token_id": SPECIAL["<|vision_end|>"],
        "image_token_id": SPECIAL["<|image_pad|>"],
        "video_token_id": SPECIAL["<|video_pad|>"],
        "vision_config": vision,
        "dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": None,
    }


def write_files(folder: Path, values: dict, text_shape: str) -> None:
    """What vLLM and Transformers read of a vision-language model, weights apart: four small files and a tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    text_files = Path(models.resolve(f"shape:{text_shape}").path)  # its tokenizer has a text for every id
    (folder / "config.json").write_text(json.dumps(values, indent=1))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR, indent=1))
    video = PREPROCESSOR | {"video_processor_type": "Qwen2VLVideoProcessor"}
    del video["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=1))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    tokenizer = json.loads((text_files / "tokenizer.json").read_text())
    ids = set(SPECIAL.values())
    vocab = {text: number for text, number in tokenizer["model"]["vocab"].items() if number not in ids}
    tokenizer["model"]["vocab"] = vocab | SPECIAL
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": number, "content": text, **flags} for text, number in SPECIAL.items()]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False))
    shutil.copy(text_files / "tokenizer_config.json", folder)


def resolve(run) -> models.Model:
    """The largest of the shapes that fits. Raises NotOnThisMachine where none does."""
    free = run.machine.gpus[0].free_bytes / 1e9
    shape = next((shape for need, shape in TIERS if free >= need), None)
    if shape is None:
        raise NotOnThisMachine(f"{free:.0f} GB of GPU memory are free, and the smallest shape needs {TIERS[-1][0]:.0f}")
    folder = models.CACHE / "shapes" / f"{shape}-vl"
    write_files(folder, config(shape), shape)
    return models.Model(f"shape:{shape.replace('qwen2.5-', 'qwen2.5-vl-')}", str(folder), "random")


def encoder_share(model: models.Model) -> float:
    """The vision encoder's share of the matrix products of an image's tokens, attention itself left out."""
    values = json.loads((Path(model.path) / "config.json").read_text())
    vision = values["vision_config"]
    width, inner = vision["hidden_size"], vision["intermediate_size"]
    merged = width * vision["spatial_merge_size"] ** 2
    per_patch = vision["depth"] * (4 * width * width + 3 * width * inner)
    per_token = per_patch * vision["spatial_merge_size"] ** 2 + merged * (merged + vision["out_hidden_size"])
    embeddings = values["vocab_size"] * values["hidden_size"]
    language = estimator.parameters(values) - embeddings * (1 if values["tie_word_embeddings"] else 2)
    return per_token / (per_token + language)


def engine_options(run, most_images: int, context: int) -> dict[str, object]:
    """Engine options of the experiment: no prefix cache, so that a repeated image is met by the image caches alone.

    With the size of the KV cache given, vLLM measures no free memory at its start: servers that have just been stopped
    may still be giving theirs back. What it wants to be free is what the smallest shape needs.
    """
    return {
        "kv_cache_memory_bytes": KV_CACHE_BYTES,
        "gpu_memory_utilization": round(TIERS[-1][0] * 1e9 / run.machine.gpus[0].total_bytes, 2),
        "max_model_len": context, "max_num_batched_tokens": context, "max_num_seqs": 4, "enforce_eager": True,
        "enable_prefix_caching": False, "limit_mm_per_prompt": {"image": most_images, "video": 0},
        "mm_processor_kwargs": {"max_pixels": MOST_PIXELS}, "enable_mm_processor_stats": True,
    }  # fmt: skip


def engine(run, most_images: int, context: int):
    """The engine of the experiment, in a process that is spawned: a forked one would hang.

    At its start it prepares an image with PyTorch's threads. This process has such threads since it wrote adapters for
    another experiment; a fork takes over the memory that says that they are there, and none of the threads.
    """
    from vllm.utils.system_utils import set_env_var

    with set_env_var("VLLM_WORKER_MULTIPROC_METHOD", "spawn"):
        return run.engine(**engine_options(run, most_images, context))


def image_url(side: int, seed: int) -> str:
    """A square picture of random pixels as the data URL that a client sends. JPEG, as photographs are."""
    import numpy
    from PIL import Image

    # Random blocks of 8 x 8: noise of single pixels would be a file of a size that no photograph has.
    blocks = numpy.random.default_rng(seed).integers(0, 256, (side // 8, side // 8, 3), dtype=numpy.uint8)
    picture = Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()


class Questions:
    """Prompts with images, to an engine in this process; each asks for one token."""

    def __init__(self, run, llm):
        from vllm import SamplingParams

        self.run, self.llm, self.seed = run, llm, 0
        self.one_token = SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True)

    def new(self, images: int, side: int) -> list[dict]:
        """A conversation with images that were never sent before."""
        parts: list[dict] = []
        for _ in range(images):
            self.seed += 1
            parts.append({"type": "image_url", "image_url": {"url": image_url(side, self.seed)}})
        return [{"role": "user", "content": [*parts, {"type": "text", "text": "What is in it?"}]}]

    def ask(self, conversation: list[dict]) -> tuple[float, int, dict[str, float]]:
        """(ms to the first token, prompt tokens, vLLM's own timings in seconds)."""
        from vllm.benchmarks.mm_processor import collect_mm_processor_stats

        collect_mm_processor_stats(self.llm.llm_engine)  # forget what is older
        begin = time.perf_counter()
        output = self.llm.chat(conversation, self.one_token, use_tqdm=False)[0]
        ms = (time.perf_counter() - begin) * 1e3
        self.run.count(1)
        stages = collect_mm_processor_stats(self.llm.llm_engine)
        return ms, len(output.prompt_token_ids), {stage: sum(seconds) for stage, seconds in stages.items()}

    def text(self, tokens: int) -> Callable[[], float]:
        """A measurement of a prompt of text with so many tokens; it returns ms."""

        def measure() -> float:
            self.seed += 1
            prompt = {"prompt_token_ids": [(self.seed * 7919 + place) % 9000 + 500 for place in range(tokens)]}
            begin = time.perf_counter()
            self.llm.generate([prompt], self.one_token, use_tqdm=False)
            self.run.count(1)
            return (time.perf_counter() - begin) * 1e3

        return measure


def measure(questions: Questions, images: int, side: int, repeats: int) -> dict[str, object]:
    """A row: new images, the same ones again, and as much text, in turns; medians."""
    predicted = images * (side // PATCH) ** 2
    stages: dict[str, list[dict[str, float]]] = {"new": [], "again": []}
    last: list[dict] = []
    tokens = 0

    def image(kind: str) -> float:
        nonlocal last, tokens
        if kind == "new":
            last = questions.new(images, side)
        ms, tokens, times = questions.ask(last)
        stages[kind].append(times)
        return ms

    contestants = {"new": partial(image, "new"), "again": partial(image, "again")}
    ms = timing.alternate(contestants | {"text": questions.text(predicted + 20)}, repeats)
    if tokens < predicted:
        raise Problem(
            f"{images} images of {side} pixels make {tokens} tokens, not {predicted}.", "Record with vLLM 0.32."
        )
    ttft, again = ms["new"].median, ms["again"].median

    def stage_ms(kind: str, name: str) -> float:
        return statistics.median(times.get(name, 0.0) for times in stages[kind][1:]) * 1e3

    return {
        "images": images, "pixels": f"{side} x {side}", "image_tokens": predicted, "ttft_ms": ttft,
        "encoder_ms": stage_ms("new", "encoder_forward_secs"),
        "encoder_pct": stage_ms("new", "encoder_forward_secs") / ttft * 100,
        "processor_ms": stage_ms("new", "preprocessor_total_secs"), "cached_ttft_ms": again, "x_cached": again / ttft,
        "cached_encoder_ms": stage_ms("again", "encoder_forward_secs"),
        "cached_processor_ms": stage_ms("again", "preprocessor_total_secs"),
        "x_text": ttft / ms["text"].median, "prompt_tokens": tokens, "spread_pct": ms["new"].spread_pct,
    }  # fmt: skip
