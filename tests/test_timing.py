"""Percentiles, repeats, turns, and the latencies of a stream."""

import random
import time

import numpy as np
import pytest

from common import timing
from common.timing import Repeats, Stream


@pytest.mark.parametrize("length", [1, 2, 3, 10, 101, 997])
def test_percentile_is_numpys(length):
    draw = random.Random(length)
    values = [draw.lognormvariate(0, 2) for _ in range(length)]
    for q in (0, 1, 25, 50, 90, 99, 99.9, 100):
        assert timing.percentile(values, q) == pytest.approx(np.percentile(values, q), rel=1e-12)


def test_percentile_leaves_its_values_as_they_are():
    values = [3.0, 1.0, 2.0]
    assert timing.percentile(values, 50) == 2.0
    assert values == [3.0, 1.0, 2.0]
    assert timing.percentile(np.array(values), 50) == 2.0


def test_percentile_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="no values"):
        timing.percentile([], 50)


def test_median_and_spread():
    repeats = Repeats((10.0, 12.0, 9.0))
    assert repeats.median == 10.0
    assert repeats.spread_pct == pytest.approx(30)
    assert Repeats((0.0, 0.0)).spread_pct == 0.0


def test_alternate_takes_turns_and_discards_warm_ups():
    calls = []

    def contestant(name):
        def measure():
            calls.append(name)
            return float(len(calls))

        return measure

    figures = timing.alternate({"a": contestant("a"), "b": contestant("b")}, repeats=3, warmups=2)
    assert "".join(calls) == "aabb" + "ababab"
    assert figures == {"a": Repeats((5.0, 7.0, 9.0)), "b": Repeats((6.0, 8.0, 10.0))}


def test_repeat_is_alternate_for_one():
    values = iter([100.0, 1.0, 3.0, 2.0])
    assert timing.repeat(lambda: next(values)).values == (1.0, 3.0, 2.0)


def test_seconds_measures_the_call():
    assert 0.05 <= timing.seconds(lambda: time.sleep(0.05)) < 1


@pytest.mark.gpu
def test_seconds_waits_for_the_gpu():
    import torch

    clock_hz = torch.cuda.get_device_properties(0).clock_rate * 1e3
    torch.cuda.synchronize()
    assert timing.seconds(lambda: torch.cuda._sleep(int(0.2 * clock_hz))) > 0.1


def test_latencies_of_a_stream():
    stream = Stream(start_s=10.0, token_s=(10.5, 10.6, 10.9, 11.1))
    assert stream.ttft_ms == pytest.approx(500)
    assert stream.itl_ms == pytest.approx([100, 300, 200])
    assert stream.tpot_ms == pytest.approx(200)
    assert stream.end_to_end_ms == pytest.approx(1100)


def test_a_single_token_has_no_time_per_output_token():
    stream = Stream(start_s=1.0, token_s=(1.25,))
    assert stream.ttft_ms == stream.end_to_end_ms == pytest.approx(250)
    assert stream.itl_ms == []
    assert stream.tpot_ms is None
