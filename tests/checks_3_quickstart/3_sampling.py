"""3. Sampling by hand"""

import math
import random

from common.check import close, expect

LOGITS = [math.log(share) for share in (0.5, 0.2, 0.15, 0.1, 0.05)]


def softmax(logits: list[float]) -> list[float]:
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def filtered(logits: list[float], order: str = "tmkp", strict: bool = False, **p: float) -> list[float]:
    """The reference. `order` is that of temperature, min_p, top_k, top_p; others, and `strict`, are known mistakes."""
    p = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | p
    for step in order:
        shares = softmax(logits)
        if step == "t":
            logits = [logit / p["temperature"] for logit in logits]
            continue
        if step == "m":
            kept = [share >= p["min_p"] * max(shares) for share in shares]
        elif step == "k":
            k = p["top_k"] if 0 < p["top_k"] < len(logits) else len(logits)
            kept = [sum(other > logit for other in logits) < k for logit in logits]
        else:
            above = [sum(other for other in shares if other > share) for share in shares]
            limit = p["top_p"]
            kept = [
                more + (share if strict else 0) < limit or limit >= 1 or more == 0
                for more, share in zip(above, shares, strict=True)
            ]
        logits = [logit if keep else -math.inf for logit, keep in zip(logits, kept, strict=True)]
    return softmax(logits)


MISTAKES = {
    "top_p is applied before top_k": {"order": "tmpk"},
    "the temperature comes after the filters": {"order": "mkpt"},
    "the temperature is not applied": {"order": "mkp"},
    "min_p comes before the temperature": {"order": "mtkp"},
    "min_p comes after the others": {"order": "tkpm"},
    "the token that carries the sum over top_p is left out; it is kept": {"strict": True},
}


def check(exercises, logits: list[float], why: str = "", **parameters: float) -> None:
    got = exercises.probabilities(logits, **parameters)
    given = ", ".join(f"{name}={value}" for name, value in parameters.items())
    wanted = filtered(logits, **parameters)
    mistakes = {
        mistake: answer
        for mistake, change in MISTAKES.items()
        if not close(answer := filtered(logits, **(parameters | change)), wanted)
    }
    if isinstance(got, list) and all(isinstance(x, float) for x in got):
        assert math.isclose(sum(got), 1.0, rel_tol=1e-6), (
            f"probabilities of {len(logits)} logits with {given or 'no parameters'} should sum to 1. "
            f"Yours sum to {sum(got):.4g}."
        )
    shares = "[" + ", ".join(f"{share:.3g}" for share in softmax(logits)) + "]"
    expect(
        f"probabilities of logits whose softmax is {shares}, with {given or 'no parameters'},",
        got,
        wanted,
        why,
        mistakes,
    )


def test_without_parameters_it_is_a_softmax(exercises):
    check(exercises, LOGITS)
    check(exercises, [2.0, -1.0, 2.0])


def test_large_logits_do_not_overflow(exercises):
    try:
        got = exercises.probabilities([1000.0, 1000.0, -1000.0])
    except OverflowError:
        got = None
    assert close(got, [0.5, 0.5, 0.0]), (
        f"probabilities([1000, 1000, -1000]) should return [0.5, 0.5, 0]. Yours "
        f"{'overflows' if got is None else f'returns {got}'}: subtract the largest logit before exp()."
    )


def test_temperature(exercises):
    check(exercises, LOGITS, "a low temperature sharpens", temperature=0.5)
    check(exercises, LOGITS, "a high one flattens", temperature=2.0)


def test_greedy(exercises):
    for parameters in ({"temperature": 0.0}, {"temperature": 1e-6, "top_k": 2, "top_p": 0.1}):
        got = exercises.probabilities([1.0, 3.0, 3.0, 0.0], **parameters)
        call = f"probabilities([1, 3, 3, 0], {', '.join(f'{key}={value}' for key, value in parameters.items())})"
        expect(call, got, [0.0, 1.0, 0.0, 0.0], "all for the first of the largest", {"equals share": [0, 0.5, 0.5, 0]})


def test_top_k(exercises):
    check(exercises, LOGITS, top_k=2)
    check(exercises, LOGITS, top_k=1)
    for off in (0, -1, 5, 50):
        check(exercises, LOGITS, "nothing is cut off", top_k=off)
    check(exercises, [1.0, 3.0, 2.0, 2.0], "both logits that equal the second are kept", top_k=2)


def test_top_p(exercises):
    check(exercises, LOGITS, "0.5 + 0.2 + 0.15 is the first sum that reaches 0.8", top_p=0.8)
    check(exercises, LOGITS, "the likeliest is always kept", top_p=0.01)
    check(exercises, LOGITS, "nothing is cut off", top_p=1.0)


def test_min_p(exercises):
    check(exercises, LOGITS, "0.35 × 0.5 is 0.175", min_p=0.35)


def test_the_order_of_the_filters(exercises):
    check(
        exercises, LOGITS, "after top_k 0.5 and 0.2 are 0.714 and 0.286, so 0.5 alone reaches 0.7", top_k=2, top_p=0.7
    )
    check(exercises, LOGITS, "the filters see what the temperature has flattened", temperature=3.0, top_p=0.6)
    check(exercises, LOGITS, "min_p sees what the temperature has sharpened", temperature=0.5, min_p=0.2)
    check(exercises, LOGITS, "top_p sees what min_p has left", min_p=0.25, top_p=0.75)


def test_the_tokens_may_stand_in_any_order(exercises):
    draw = random.Random(0)
    for _ in range(50):
        logits = [draw.gauss(0, 3) for _ in range(20)]
        check(
            exercises,
            logits,
            temperature=draw.choice([0.3, 0.8, 1.0, 1.7]),
            top_k=draw.choice([0, 1, 3, 8]),
            top_p=draw.choice([0.3, 0.75, 0.95, 1.0]),
            min_p=draw.choice([0.0, 0.05, 0.3]),
        )
