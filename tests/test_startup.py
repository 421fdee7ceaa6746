"""What a server's log says about its start. The lines are those of vLLM 0.32."""

import pytest

from common import startup

CPU = """\
(APIServer pid=13650) INFO 11-21 05:19:31 [api_server.py:1201] vLLM API server version 0.32.0
(EngineCore pid=13821) INFO 11-21 05:19:41 [default_loader.py:501] Loading weights took 0.32 seconds
(EngineCore pid=13821) INFO 11-21 05:19:43 [core.py:402] init engine (profile, create kv cache, warmup model) took 1.28 s
"""  # noqa: E501

GPU = """\
(EngineCore pid=7) INFO 11-21 05:19:40 [default_loader.py:501] Loading weights took 2.11 seconds
(EngineCore pid=7) INFO 11-21 05:19:41 [gpu_model_runner.py:5150] Model loading took 14.27 GiB memory and 3.454321 seconds
(EngineCore pid=7) INFO 11-21 05:19:59 [gpu_model_runner.py:6582] Graph capturing finished in 3 secs, took 0.41 GiB
(EngineCore pid=7) INFO 11-21 05:20:12 [core.py:395] init engine (profile, create kv cache, warmup model) took 31.50 s (compilation: 20.25 s)
"""  # noqa: E501


def test_parts_of_a_start_on_a_cpu():
    assert startup.parts(CPU) == {"load_s": 0.32, "compile_s": None, "graphs_s": None, "profile_s": 1.28}


def test_parts_of_a_start_on_a_gpu_add_up():
    parts = startup.parts(GPU)
    assert parts == pytest.approx({"load_s": 3.454321, "compile_s": 20.25, "graphs_s": 3.0, "profile_s": 8.25})
    assert parts["compile_s"] + parts["graphs_s"] + parts["profile_s"] == pytest.approx(31.5)


def test_parts_with_an_encoder_count_its_compilation():
    log = GPU.replace("20.25 s)", "20.25 s — language_model: 15.00 s, encoder: 5.25 s)")
    assert startup.parts(log)["compile_s"] == 20.25


def test_of_a_repeated_line_the_last_counts():
    assert startup.parts(CPU + CPU.replace("0.32", "0.50"))["load_s"] == 0.5


def test_rounding_never_makes_a_part_negative():
    assert startup.parts(GPU.replace("31.50", "22.00"))["profile_s"] == 0.0


def test_what_a_log_does_not_say_is_not_zero():
    assert set(startup.parts("").values()) == {None}
