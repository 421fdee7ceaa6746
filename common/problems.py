"""Problems said in words: what went wrong, what it means, and the fix."""

import re


class Problem(Exception):
    """An error that a person can mend. `str()` is the message; `fix` says what to do."""

    def __init__(self, message: str, fix: str, meaning: str = ""):
        super().__init__(message)
        self.meaning, self.fix = meaning, fix


class NotOnThisMachine(Exception):
    """An experiment that this hardware can't run; the recorded run is shown instead. `str()` is the reason."""


# (what the text of an error holds, what it means, the fix). The first match counts.
KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        r"No space left on device",
        "The disk is full.",
        "Free some space: `df -h .` shows what is left, `du -sh ~/.cache/*` what takes it.",
    ),
    (
        r"[Aa]ddress already in use|port \d+ is (already )?in use",
        "Another process listens on that port.",
        "Take another port (--port), or find the process with `ss -ltnp` and stop it.",
    ),
    (
        r"larger than the maximum number of tokens that can be stored in KV cache|"
        r"KV cache is needed, which is larger than the available",
        "One request of max_model_len tokens would not fit the KV cache, so it could never run.",
        "Lower max_model_len to what the message says fits, or give the KV cache more memory.",
    ),
    (
        r"No available memory for the cache blocks|[Nn]ot enough memory .*KV|Available KV cache memory: -",
        "After weights and activations nothing is left for the KV cache.",
        "Take a smaller or a quantised model, or raise gpu_memory_utilization if other processes leave room.",
    ),
    (
        r"Free memory on device.* is less than desired|less than desired (GPU|CPU) memory utilization",
        "Other processes hold memory that vLLM was told to use.",
        "Stop them (`nvidia-smi` lists them) or lower gpu_memory_utilization.",
    ),
    (
        r"out of memory|OutOfMemory|Cannot allocate memory|DefaultCPUAllocator: can't allocate",
        "A buffer did not fit the memory that is free.",
        "Take a smaller model or a shorter max_model_len, or stop what else uses the memory.",
    ),
    (
        r"maximum context length is \d+|cannot be greater than max_model_len|"
        r"longer than the maximum model length|exceeds? .*max_model_len",
        "Prompt and requested output together are longer than the engine's max_model_len.",
        "Shorten the prompt, lower max_tokens, or start the engine with a larger max_model_len.",
    ),
    (
        r"User-specified max_model_len .* is greater than the derived max_model_len",
        "The model was not trained for positions that far.",
        "Lower max_model_len to the model's own limit.",
    ),
    (
        r"EngineDeadError|EngineCore encountered an issue|Engine core .*died|engine core proc.* died",
        "The engine's process is gone: it was killed, or the GPU was lost.",
        "Read the log for the first error above; check `nvidia-smi` and `dmesg`; then start it again.",
    ),
    (
        r"wrong tokenizer|[Cc]an't load tokenizer|[Tt]oken id \d+ is out of vocabulary",
        "The tokenizer is missing or does not belong to this model.",
        "Give the folder of the model's own tokenizer, or leave the option out.",
    ),
    (
        r"attention backend|Invalid attention backend|AttentionBackendEnum|Unknown attention",
        "This attention backend does not exist or does not run on this hardware.",
        "Leave the option out: vLLM picks a backend that runs here. The message names those that do, or says why not.",
    ),
    (
        r"Invalid repository ID or local directory|Repo id must be in the form|"
        r"does not appear to have a file named config.json|"
        r"is not a local folder and is not a valid model identifier|Repo(sitory)? ?[Nn]ot ?[Ff]ound|"
        r"couldn't connect to|LocalEntryNotFound|offline mode is enabled|Cannot find the requested files",
        "No model of that name is on this disk, and the hub did not give one.",
        "Check the spelling; without a network use course-lm, shape:NAME or a folder that holds config.json.",
    ),
    (
        r"Cannot find any model weights",
        "The folder has a config.json and no weight files.",
        "Copy or download the *.safetensors files, or pass load_format='dummy' if you want random weights.",
    ),
    (
        r"Model architectures .* are not supported|does not recognize this architecture",
        "This version of vLLM does not know the model's architecture.",
        "Check the list of supported models; a newer vLLM or model_impl='transformers' may load it.",
    ),
    (
        r"Connection refused|All connection attempts failed|Server disconnected",
        "Nothing listens there: the server has not started, or it is gone.",
        "Look at the end of the server's log; start it again.",
    ),
    (
        r"Permission denied|Operation not permitted|Read-only file system",
        "This user may not write there.",
        "Change the folder's owner or mode, or work in a copy of the course that you own.",
    ),
    (
        r"ipc path .* is longer than|AF_UNIX path too long",
        "vLLM's processes talk through sockets in the temporary folder, and the path of a socket has a limit.",
        "Choose a temporary folder with a shorter path: TMPDIR=/tmp.",
    ),
    (
        r"Not a directory|File exists|Is a directory",
        "A file stands where a folder belongs, or a folder where a file does.",
        "Move it away: `ls -ld` of that path and of those above it shows which it is.",
    ),
    (
        r"No such file or directory",
        "There is no file or folder of that name.",
        "Check the spelling; a folder that is missing has to be made first, by `mkdir -p`.",
    ),
)


def explain(error: BaseException | str) -> tuple[str, str]:
    """(meaning, fix) for an error or its text; a general answer where the text is not known."""
    if isinstance(error, Problem):
        return error.meaning, error.fix
    text = error if isinstance(error, str) else f"{type(error).__name__}: {error}"
    for pattern, meaning, fix in KNOWN:
        if re.search(pattern, text):
            return meaning, fix
    return (
        "This error is not one of those that the course knows.",
        "Read the log from its first error on; 3.quickstart/troubleshooting.md goes by symptom.",
    )


def first_line(error: BaseException | str, limit: int = 300) -> str:
    """The message of an error on one line, at most `limit` characters."""
    text = str(error).strip() or type(error).__name__
    text = re.sub(r"\s+", " ", text)
    return text if len(text) <= limit else text[: limit - 1] + "…"
