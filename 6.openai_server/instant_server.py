"""A server that answers at once: what a load generator measures of it is the time of the generator itself.

    python 6.openai_server/instant_server.py PORT

Its answers have the form of vLLM's completions, streamed, a token each millisecond and the first one without a wait.
"""

import asyncio
import json
import sys

from aiohttp import web

CHUNK = {
    "id": "cmpl-0", "object": "text_completion", "created": 0, "model": "none",
    "choices": [{"index": 0, "text": " word", "logprobs": None, "finish_reason": None}],
}  # fmt: skip
BETWEEN_TOKENS_S = 0.001


async def completions(request: web.Request) -> web.StreamResponse:
    """POST /v1/completions: `max_tokens` events, the usage, and the end."""
    tokens = (await request.json())["max_tokens"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(tokens):
        await response.write(b"data: %s\n\n" % json.dumps(CHUNK).encode())
        await asyncio.sleep(BETWEEN_TOKENS_S)
    usage = {"prompt_tokens": 1, "completion_tokens": tokens, "total_tokens": 1 + tokens}
    await response.write(b"data: %s\n\n" % json.dumps(CHUNK | {"choices": [], "usage": usage}).encode())
    await response.write(b"data: [DONE]\n\n")
    return response


async def health(request: web.Request) -> web.Response:
    return web.Response()


def main(port: int) -> None:
    application = web.Application()
    application.add_routes([web.get("/health", health), web.post("/v1/completions", completions)])
    web.run_app(application, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
