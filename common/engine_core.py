"""An engine that is stepped by hand: waiting for its process without waiting for ever when that has died.

Each function takes `llm.llm_engine.engine_core`, vLLM's client of the engine core, which runs in a process of its own
or, on a CPU, in this one (vllm/v1/engine/core_client.py).
"""


def is_dead(client) -> bool:
    """Whether the engine's process has ended; never if it is this one."""
    return hasattr(client, "resources") and client.resources.engine_dead


def wait_for_output(client) -> None:
    """Wait until `step` finds an output of the engine's process. In this process it computes one: nothing to wait for.

    vLLM 0.32 waits in `step` itself, and for ever if that process is killed: it notes the end, and wakes nobody.
    Raises EngineDeadError.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    if not hasattr(client, "outputs_queue"):
        return
    with client.outputs_queue.not_empty:  # the condition that `put` notifies: no output comes later than it would
        while not client.outputs_queue.queue:
            if is_dead(client):
                raise EngineDeadError()
            client.outputs_queue.not_empty.wait(0.5)
