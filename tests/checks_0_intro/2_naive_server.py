"""2. The day the naive server falls over"""

import random

from common.check import close, expect


def as_rows(requests) -> list[tuple[float, float, bool]]:
    return sorted((float(r.sent_s), round(float(r.latency_s), 9), bool(r.in_time)) for r in requests)


def loop(exercises, *arguments, **options):
    """The requests of closed_loop. Says so if it gives something else."""
    requests = exercises.closed_loop(*arguments, **options)
    assert isinstance(requests, list) and all(isinstance(r, exercises.Request) for r in requests), (
        f"closed_loop should return a list of Request; yours returns {str(requests)[:80]}."
    )
    return requests


def test_one_user_never_waits(exercises):
    expect(
        "closed_loop(users=1, answer_s=2, deadline_s=10, window_s=5), as (sent, latency, in time),",
        as_rows(loop(exercises, 1, 2, 10, 5)),
        [(0, 2, True), (2, 2, True), (4, 2, True)],
        "one request after the other, and the one sent at 4 s is waited for",
        {"the last request is dropped at the end of the window": [(0, 2, True), (2, 2, True)]},
    )


def test_nobody_sends_when_the_window_is_over(exercises):
    expect(
        "closed_loop(users=1, answer_s=2, deadline_s=10, window_s=4)",
        as_rows(loop(exercises, 1, 2, 10, 4)),
        [(0, 2, True), (2, 2, True)],
        "4 s is not before the end of the window",
        {"a request is sent at the very end of the window": [(0, 2, True), (2, 2, True), (4, 2, True)]},
    )


def test_users_wait_for_each_other(exercises):
    # A is served 0 to 2, B 2 to 4, C 4 to 6; A's second request, sent at 2, is served 6 to 8, and so on.
    expect(
        "closed_loop(users=3, answer_s=2, deadline_s=10, window_s=4)",
        as_rows(loop(exercises, 3, 2, 10, 4)),
        [(0, 2, True), (0, 4, True), (0, 6, True), (2, 6, True)],
        "the server answers at 2, 4, 6 and 8 s",
        {"requests are answered side by side": [(0, 2, True)] * 3 + [(2, 2, True)] * 3},
    )


def test_a_latency_of_exactly_the_deadline_is_in_time(exercises):
    requests = loop(exercises, 5, 2, 10, 40)
    late = [r for r in requests if not r.in_time]
    assert not late, (
        f"5 users of a server that needs 2 s wait 10 s each, and with a deadline of 10 s all are in time. With yours "
        f"{len(late)} of {len(requests)} requests fail."
    )


def test_the_server_works_for_users_who_have_gone(exercises):
    # A 0 to 2, B 2 to 4, C 4 to 6 (has gone at 5), A again 6 to 8 (gone at 7), B again 8 to 10 (gone at 9),
    # C again, sent at 5, 10 to 12 (gone at 10), A for the third time, sent at 7, 12 to 14 (gone at 12).
    first = [(0, 2, True), (0, 4, True), (0, 5, False), (2, 5, False), (4, 5, False), (5, 5, False)]
    wanted, dropped = [*first, (7, 5, False)], [*first, (7, 5, True)]
    expect(
        "closed_loop(users=3, answer_s=2, deadline_s=5, window_s=9)",
        as_rows(loop(exercises, 3, 2, 5, 9)),
        wanted,
        "the server also works for 2 s on the request of a user who is about to go or has gone",
        {"the server drops requests of users who have gone; that is for notices=True": dropped},
    )
    expect(
        "closed_loop(users=3, answer_s=2, deadline_s=5, window_s=9, notices=True)",
        as_rows(loop(exercises, 3, 2, 5, 9, notices=True)),
        dropped,
        "at 10 s the server drops the request sent at 5, whose user goes then, and takes the one sent at 7",
        {"the request whose user goes at the moment of its turn is not dropped": wanted},
    )


def test_with_twenty_users_it_collapses(exercises):
    completed = sum(r.in_time for r in loop(exercises, 20, 2, 10, 100))
    assert completed == 5, (
        "20 users, 2 s an answer, 10 s of patience, 100 s: only the first 5 answers are in time, and then none ever "
        f"again, as the queue is full of requests whose users have gone. With yours {completed} are in time."
    )


def test_a_server_that_notices_keeps_answering(exercises):
    requests = loop(exercises, 20, 2, 10, 100, notices=True)
    completed = sum(r.in_time and r.sent_s + r.latency_s <= 100 for r in requests)
    assert completed == 50, (
        "20 users, 2 s an answer, 10 s of patience, notices=True: the server never works in vain, so the 50 answers of "
        f"the first 100 s are all in time. With yours {completed} are."
    )


def test_littles_law(exercises):
    """Requests under way = rate × time in the system; in a closed loop that is the number of users, always."""
    draw = random.Random(0)
    for _ in range(20):
        users, answer_s, deadline_s = draw.randint(1, 12), draw.choice([0.5, 1, 3]), draw.choice([2, 5, 20])
        notices = draw.random() < 0.5
        call = f"closed_loop({users}, {answer_s}, {deadline_s}, 30, notices={notices})"
        requests = loop(exercises, users, answer_s, deadline_s, 30, notices=notices)
        for moment in (0.1, 7.7, 15.3, 29.9):
            open_now = sum(r.sent_s <= moment < r.sent_s + r.latency_s for r in requests)
            assert open_now == users, (
                f"In {call} there should be {users} requests under way at {moment} s, one for each user, as each sends "
                f"the next when it is done with the last. In yours there are {open_now}."
            )
        for r in requests:
            assert r.latency_s <= deadline_s + 1e-9, (
                f"In {call} a user waits {r.latency_s} s, longer than the deadline."
            )
            assert r.in_time or close(r.latency_s, deadline_s), f"In {call} a user gives up before the deadline."
        sent = [r.sent_s for r in requests]
        assert sent == sorted(sent), f"{call} should return the requests in the order in which they were sent."


def test_summary(exercises):
    requests = [exercises.Request(0.0, float(latency), True) for latency in (1, 2, 3)]
    requests += [exercises.Request(0.0, 10.0, False)]
    got = exercises.summary(requests)
    assert isinstance(got, exercises.Summary), f"summary should return a Summary; yours returns {got!r}."
    call = "summary of three answers after 1, 2 and 3 s and one that failed at 10 s: "
    expect(call + "completed", got.completed, 3)
    expect(call + "failed", got.failed, 1)
    expect(call + "p50_s", got.p50_s, 2.5, "", {"your percentile leaves the failed request out": 2.0})
    expect(
        call + "p99_s",
        got.p99_s,
        9.79,
        "",
        {
            "your percentile leaves the failed request out": 2.98,
            "you take the largest": 10.0,
            "you pass 0.99 where percentile takes 99": 1.0297,
        },
    )
