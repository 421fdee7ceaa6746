"""Puts the chat and the extractor of the exercises to use on a running server, in a terminal."""

import sys
from collections.abc import Callable
from contextlib import suppress

import openai


def main(chat_class: type, extractor_class: type, counter: Callable) -> None:
    """Extract one record, then chat until an empty line or Ctrl-D. Ctrl-C ends an answer.

    The server's address is the first word of the command line. All three arguments are those of exercises.py or of
    solutions.py. Exits with a sentence if nothing answers there.
    """
    server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    client = openai.OpenAI(base_url=f"{server}/v1", api_key="none")
    extractor = extractor_class(client, "course-lm", {"name": str, "age": int, "city": str})
    try:
        print(extractor.extract("Marta is 44, has a home in Oslo and a job as a baker."))
    except openai.APIConnectionError:
        sys.exit(f"Nothing answers at {server}. Start the server first; another address goes behind the file's name.")
    chat = chat_class(client, "course-lm", counter(server, "course-lm"), context=2048)
    with suppress(EOFError):  # Ctrl-D
        while question := input("\n> ").strip():
            try:
                for piece in chat.ask(question):
                    print(piece, end="", flush=True)
            except KeyboardInterrupt:
                print(" …")
            except (openai.APIError, ValueError) as error:
                print(f"not answered: {error}")
