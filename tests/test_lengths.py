"""Request lengths: they follow the trace that they were taken from, fit the limit, and repeat with the seed."""

import statistics

import pytest

from common import lengths


def test_a_sample_has_the_means_and_quantiles_of_the_trace():
    requests = lengths.sample(20_000, limit=20_000)
    prompts = [request.input_tokens for request in requests]
    answers = [request.output_tokens for request in requests]
    # AzureLLMInferenceTrace_conv: means 1,155 and 211, medians 1,020 and 129, third quartiles 1,189 and 395.
    # A straight line between the last deciles has more long requests than the trace, hence the wider bound.
    assert statistics.mean(prompts) == pytest.approx(1155, rel=0.25)
    assert statistics.mean(answers) == pytest.approx(211, rel=0.25)
    assert statistics.median(prompts) == pytest.approx(1020, rel=0.03)
    assert statistics.median(answers) == pytest.approx(129, rel=0.1)
    assert statistics.quantiles(prompts)[2] == pytest.approx(1189, rel=0.03)
    assert statistics.quantiles(answers)[2] == pytest.approx(395, rel=0.03)


def test_every_request_fits_and_the_same_seed_repeats():
    requests = lengths.sample(500, seed=3, limit=512)
    assert all(r.input_tokens + r.output_tokens <= 512 and min(r.input_tokens, r.output_tokens) >= 1 for r in requests)
    assert requests == lengths.sample(500, seed=3, limit=512) != lengths.sample(500, seed=4, limit=512)
    assert lengths.sample(0) == []


def test_scale_shortens_prompts_and_answers():
    whole, tenth = (lengths.sample(5000, limit=20_000, scale=scale) for scale in (1.0, 0.1))
    for kind in ("input_tokens", "output_tokens"):
        means = [statistics.mean(getattr(request, kind) for request in requests) for requests in (whole, tenth)]
        assert means[1] == pytest.approx(means[0] / 10, rel=0.05)


def test_a_limit_that_nothing_fits_is_refused():
    with pytest.raises(ValueError, match="the shortest has 9"):
        lengths.sample(1, limit=8)


def test_unequal_lengths_are_the_same_in_every_run_and_have_the_mean_that_was_asked_for():
    found = lengths.unequal(32, 512)
    assert found == lengths.unequal(32, 512) and {min(found), max(found)} == {16, 48}
    assert sum(found) / len(found) == pytest.approx(32, rel=0.05)
