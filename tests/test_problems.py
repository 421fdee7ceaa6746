"""What is said about errors: the texts are those that vLLM 0.32, PyTorch, the hub client and the system write."""

import pytest

from common.problems import KNOWN, Problem, explain, first_line

TEXTS = {
    "disk is full": "OSError: [Errno 28] No space left on device: '/root/.cache/huggingface'",
    "listens on that port": "OSError: [Errno 98] Address already in use",
    "would not fit the KV cache": "ValueError: To serve at least one request with the model's max seq len (2048), "
    "(0.06 GiB KV cache is needed, which is larger than the available KV cache memory (0.0 GiB). Based on the "
    "available memory, the estimated maximum model length is 128.",
    "nothing is left for the KV cache": "ValueError: No available memory for the cache blocks. Try increasing "
    "`gpu_memory_utilization` when initializing the engine.",
    "Other processes hold memory": "ValueError: Free memory on device cuda:0 (10.2/79.1 GiB) on startup is less than "
    "desired GPU memory utilization (0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU memory used by "
    "other processes.",
    "did not fit the memory": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 462.00 MiB. GPU 0 has a "
    "total capacity of 79.10 GiB of which 5.81 MiB is free.",
    "Prompt and requested output": "VLLMValidationError: This model's maximum context length is 2048 tokens. However, "
    "your prompt contains 4000 input tokens, which exceeds this limit even without any output tokens.",
    "not trained for positions": "ValidationError: 1 validation error for ModelConfig Value error, User-specified "
    "max_model_len (9999) is greater than the derived max_model_len (max_position_embeddings=2048 or "
    "model_max_length=None in model's config.json). To allow overriding this maximum, set the env var "
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. If the model "
    "uses relative position encoding (RoPE), positions exceeding derived_max_model_len lead to nan.",
    "engine's process is gone": "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack "
    "trace (above) for the root cause.",
    "does not belong to this model": "OSError: Can't load tokenizer for '/models/x'. If you were trying to load it "
    "from 'https://huggingface.co/models', make sure you don't have a local directory.",
    "attention backend does not exist": "ValueError: Invalid attention backend: 'FLASH_ATTENTION'. Valid options are: "
    "FLASH_ATTN, TRITON_ATTN, CPU_ATTN",
    "No model of that name": "ValueError: Invalid repository ID or local directory specified: 'course-lmm'.",
    "no weight files": "RuntimeError: Cannot find any model weights with `/models/x`",
    "does not know the model's architecture": "ValidationError: 1 validation error for ModelConfig Value error, Model "
    "architectures ['FutureForCausalLM'] are not supported for now.",
    "Nothing listens there": "httpx.ConnectError: [Errno 111] Connection refused",
    "may not write": "PermissionError: [Errno 13] Permission denied: '/course/results'",
    "path of a socket has a limit": "zmq.error.ZMQError: ipc path \"/a/folder/cd62583a-ec2d-4f3e-8322-f8a09a5a08c4\" "
    "is longer than 107 characters (sizeof(sockaddr_un.sun_path)).",
    "no file or folder of that name": "FileNotFoundError: [Errno 2] No such file or directory: '/course/a.jsonl'",
    "where a folder belongs": "NotADirectoryError: [Errno 20] Not a directory: '/course/file/results'",
}


@pytest.mark.parametrize("meaning", TEXTS)
def test_a_known_error_is_explained(meaning):
    found, fix = explain(TEXTS[meaning])
    assert meaning in found
    assert fix


def test_every_explanation_is_reached_by_a_real_text():
    assert {explain(text) for text in TEXTS.values()} == {(meaning, fix) for _, meaning, fix in KNOWN}


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("torch.cuda.OutOfMemoryError: CUDA out of memory.", "did not fit the memory"),
        ("RuntimeError: [enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory", "did not fit"),
        ("The decoder prompt (length 3000) is longer than the maximum model length of 2048.", "Prompt and requested"),
        ("ValueError: Free memory on device is less than desired CPU memory utilization", "Other processes"),
        ("httpx.RemoteProtocolError: Server disconnected without sending a response.", "Nothing listens"),
        ("OSError: [Errno 30] Read-only file system: '/results'", "may not write"),
        ("OSError: x is not a local folder and is not a valid model identifier listed on the hub", "No model of that"),
    ],
)
def test_other_forms_of_the_same_errors(text, meaning):
    assert meaning in explain(text)[0]


def test_an_exception_is_explained_by_its_type_too():
    assert explain(ConnectionRefusedError(111, "Connection refused"))[0].startswith("Nothing listens")


def test_a_problem_explains_itself():
    assert explain(Problem("broken", "mend it", "it is broken")) == ("it is broken", "mend it")


def test_an_unknown_error_gets_the_general_answer():
    meaning, fix = explain(ZeroDivisionError("division by zero"))
    assert "not one of those" in meaning
    assert "log" in fix


def test_first_line_is_one_line_of_limited_length():
    assert first_line("two\n   lines") == "two lines"
    assert first_line("x" * 500) == "x" * 299 + "…"
    assert first_line("x" * 40, limit=40) == "x" * 40
    assert first_line(ValueError("  spaced ")) == "spaced"
    assert first_line(AssertionError()) == "AssertionError"
