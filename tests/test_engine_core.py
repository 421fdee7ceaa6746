"""Waiting for an engine's process."""

import queue
import threading
import time
from types import SimpleNamespace

import pytest
from vllm.v1.engine.exceptions import EngineDeadError

from common.engine_core import is_dead, wait_for_output


def client_of_a_process(dead: bool = False) -> SimpleNamespace:
    return SimpleNamespace(outputs_queue=queue.Queue(), resources=SimpleNamespace(engine_dead=dead))


def test_an_engine_in_this_process_is_not_waited_for():
    client = SimpleNamespace()
    wait_for_output(client)
    assert not is_dead(client)


def test_an_output_that_is_there_is_not_waited_for_even_if_the_process_has_ended():
    client = client_of_a_process(dead=True)
    client.outputs_queue.put("output")
    wait_for_output(client)
    assert client.outputs_queue.get_nowait() == "output"


def test_an_output_ends_the_wait_when_it_comes():
    waited_s = []
    for _ in range(3):
        client = client_of_a_process()
        threading.Timer(0.1, client.outputs_queue.put, ["output"]).start()
        start = time.monotonic()
        wait_for_output(client)
        waited_s.append(time.monotonic() - start)
    assert 0.1 <= min(waited_s) < 0.4  # not at the next look for a death, every 0.5 s


def test_the_end_of_the_process_ends_the_wait():
    client = client_of_a_process()
    threading.Timer(0.1, setattr, [client.resources, "engine_dead", True]).start()
    with pytest.raises(EngineDeadError):
        wait_for_output(client)
    assert is_dead(client)
