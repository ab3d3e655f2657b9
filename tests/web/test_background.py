"""Work in the background: it tells how far it is, ends with its result or its error, and can be stopped."""

import threading
from collections.abc import Callable, Iterator

import pytest

from crnn.web.background import Stopped, in_steps

SOON = 10.0  # seconds, after which a test gives up waiting
Report = Callable[[float], None]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """What a test starts, it ends."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(SOON)
        assert not thread.is_alive()


def test_progress_comes_in_order_and_the_result_last() -> None:
    def work(report: Report) -> str:
        for share in (0.25, 0.5, 1.0):
            report(share)
        return "done"

    assert list(in_steps(work)) == [0.25, 0.5, 1.0, "done"]


@pytest.mark.parametrize("result", [None, 0.5, [], False])
def test_any_result_ends_it(result: object) -> None:
    assert list(in_steps(lambda report: result)) == [result]


def test_progress_can_be_seen_while_the_work_goes_on() -> None:
    go_on = threading.Event()

    def work(report: Report) -> bool:
        report(0.5)
        return go_on.wait(SOON)

    steps = in_steps(work)
    assert next(steps) == 0.5
    go_on.set()
    assert list(steps) == [True]


def test_an_error_passes_through_after_the_progress_before_it() -> None:
    error = KeyError("a reason")

    def work(report: Report) -> None:
        report(0.5)
        raise error

    steps = in_steps(work)
    assert next(steps) == 0.5
    with pytest.raises(KeyError) as raised:
        next(steps)
    assert raised.value is error
    assert list(steps) == []


def test_closing_stops_the_work_at_its_next_report() -> None:
    closed, ended = threading.Event(), threading.Event()
    reached = []

    def work(report: Report) -> None:
        try:
            report(0.1)
            reached.append(closed.wait(SOON))
            report(0.2)
            reached.append("too far")
        except Stopped:
            reached.append("stopped")
            raise
        finally:
            ended.set()

    steps = in_steps(work)
    assert next(steps) == 0.1
    steps.close()
    closed.set()
    assert ended.wait(SOON)
    assert reached == [True, "stopped"]
    assert list(steps) == []


def test_an_iterator_that_nobody_holds_any_more_stops_the_work() -> None:
    let_go, ended = threading.Event(), threading.Event()
    reached = []

    def work(report: Report) -> None:
        try:
            for share in (0.0, 0.5, 1.0):
                reached.append(share)
                report(share)
                let_go.wait(SOON)
        finally:
            ended.set()

    for _ in in_steps(work):
        break
    let_go.set()
    assert ended.wait(SOON)
    assert reached == [0.0, 0.5]


def test_nothing_runs_before_anybody_asks_or_after_the_end() -> None:
    threads = []

    def work(report: Report) -> None:
        threads.append(threading.current_thread())
        report(1.0)

    steps = in_steps(work)
    assert not threads
    assert list(steps) == [1.0, None]
    threads[0].join(SOON)
    assert not threads[0].is_alive()
    assert threads[0] is not threading.current_thread()


def test_several_at_once_do_not_hear_each_other() -> None:
    def count(start: int) -> Callable[[Report], int]:
        def work(report: Report) -> int:
            for number in range(start, start + 20):
                report(number)
            return start + 20

        return work

    runs = [in_steps(count(start)) for start in (0, 100, 200)]
    heard = list(zip(*runs, strict=True))
    assert heard == [(number, 100 + number, 200 + number) for number in range(21)]
