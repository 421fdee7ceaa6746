"""A completion server as a first attempt writes it: FastAPI around Transformers' `generate`.

    python 0.intro/naive_server.py --model course-lm --port 8001                    one request at a time
    python 0.intro/naive_server.py --model course-lm --port 8001 --max-batch 64     static batching

Static batching takes all requests that wait, up to --max-batch, generates until the longest is done, and only
then takes the next. The server speaks just enough of the OpenAI API (`/v1/completions`, no streaming) for the
same clients to measure it and vLLM. `/v1/discard` drops what waits, so that one measurement does not inherit
the queue of the one before; a first attempt would not have it.
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from common import hardware, models

BATCH_WAIT_S = 0.02  # how long static batching waits for company after the first request


class Completion(BaseModel):
    """The part of an OpenAI completion request that this server reads; `prompt` is a list of token ids."""

    prompt: list[int]
    max_tokens: int = 16


@torch.inference_mode()
def generate(model, requests: list[Completion], pad: int) -> list[list[int]]:
    """Greedy token ids for each request. Shorter prompts are padded on the left, shorter answers cut at the end."""
    longest = max(len(request.prompt) for request in requests)
    padding = [longest - len(request.prompt) for request in requests]
    ids = [[pad] * p + request.prompt for p, request in zip(padding, requests, strict=True)]
    mask = [[0] * p + [1] * len(request.prompt) for p, request in zip(padding, requests, strict=True)]
    steps = max(request.max_tokens for request in requests)
    output = model.generate(
        input_ids=torch.tensor(ids, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        max_new_tokens=steps,
        min_new_tokens=steps,
        do_sample=False,
        pad_token_id=pad,
    )
    answers = output[:, longest:].tolist()
    return [answer[: request.max_tokens] for answer, request in zip(answers, requests, strict=True)]


def application(model, tokenizer, max_batch: int) -> FastAPI:
    """The server's routes, and the loop that takes requests from the queue."""
    queue: asyncio.Queue = asyncio.Queue()
    pad = tokenizer.pad_token_id or 0

    async def work() -> None:
        while True:
            batch = [await queue.get()]
            if max_batch > 1:
                await asyncio.sleep(BATCH_WAIT_S)
            while len(batch) < max_batch and not queue.empty():
                batch.append(queue.get_nowait())
            try:
                answers = await asyncio.to_thread(generate, model, [request for request, _ in batch], pad)
                for answer, (_, future) in zip(answers, batch, strict=True):
                    if not future.done():
                        future.set_result(answer)
            except RuntimeError as error:  # out of memory, most likely: these requests fail, the server goes on
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        worker = asyncio.create_task(work())
        yield
        worker.cancel()

    app = FastAPI(lifespan=lifespan)

    @app.get("/health")
    async def health() -> dict:
        return {}

    @app.post("/v1/completions")
    async def completions(request: Completion) -> dict:
        future = asyncio.get_running_loop().create_future()
        queue.put_nowait((request, future))
        answer = await future
        text = tokenizer.decode(answer)
        return {"choices": [{"text": text}], "usage": {"completion_tokens": len(answer)}}

    @app.post("/v1/discard")
    async def discard() -> dict:
        dropped = queue.qsize()
        while not queue.empty():
            queue.get_nowait()[1].set_exception(HTTPException(503, "discarded"))
        return {"dropped": dropped}

    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="course-lm")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--max-batch", type=int, default=1)
    options = parser.parse_args()
    server = application(
        *models.transformers_model(models.resolve(options.model), hardware.machine()), max_batch=options.max_batch
    )
    uvicorn.run(server, host="127.0.0.1", port=options.port, log_level="warning")
