"""Progress bars: asked for by True, by default in interactive sessions only, one for all that a call does."""

import builtins
import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cases_graphs import planted

import interbasis.analysis
from interbasis.analysis import epsilon_profile, find_modules
from interbasis.analysis.errors import InputError
from interbasis.analysis.notebook import bars
from interbasis.analysis.notebook.bars import Bar, with_bar
from interbasis.analysis.progress import Progress, ProgressCallback, report


class Recorded:
    """Stands for tqdm's bar: what happens to it."""

    made: list["Recorded"]

    def __init__(self, desc: str, total: int | None, leave: bool) -> None:
        self.n, self.said, self.open = 0, [(desc, total)], True
        Recorded.made.append(self)

    def reset(self, total: int | None) -> None:
        self.n, self.total = 0, total

    def set_description(self, desc: str, refresh: bool) -> None:
        self.said.append((desc, self.total))

    def set_postfix_str(self, text: str, refresh: bool) -> None:
        self.message = text

    def update(self, n: int) -> None:
        self.n += n

    def close(self) -> None:
        self.open = False


@pytest.fixture(autouse=True)
def tqdm(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    Recorded.made = []
    monkeypatch.setattr(bars, "_tqdm", lambda: Recorded)
    return Recorded.made


@with_bar
def work(n: int, *, progress: ProgressCallback | None = None) -> int:
    return sum(report(range(n), "work", progress))


@with_bar
def outer(*, progress: ProgressCallback | None = None) -> int:
    return sum(work(3) for _ in report(range(2), "outer", progress))


def by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtins, "get_ipython", lambda: None, raising=False)


def test_script_shows_no_bar_unless_asked(tqdm: list[Recorded]) -> None:
    assert (work(4), work(4, progress=False), len(tqdm)) == (6, 6, 0)
    assert work(4, progress=True) == 6
    (bar,) = tqdm
    assert (bar.n, bar.said, bar.open) == (4, [("work", 4)], False)


def test_interactive_session_shows_one_bar_for_all(tqdm: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(monkeypatch)
    assert outer() == 6
    assert [bar.said for bar in tqdm] == [[("outer", 2)]]
    assert outer(progress=False) == 6
    assert len(tqdm) == 1


def test_callback_is_called_as_ever(tqdm: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(monkeypatch)
    seen: list[Progress] = []
    work(2, progress=seen.append)
    assert [found.done for found in seen] == [0, 1, 2]
    assert not tqdm


def test_bar_starts_anew_with_each_step_and_closes_on_errors(tqdm: list[Recorded]) -> None:
    bar = Bar()
    for found in (Progress("a", 0, 2), Progress("a", 2, 2), Progress("b", 1, None, "so far"), Progress("b", 0, 3)):
        bar(found)
    assert tqdm[0].said == [("a", 2), ("b", None), ("b", 3)]
    assert tqdm[0].message == "so far"

    @with_bar
    def fails(*, progress: ProgressCallback | None = None) -> None:
        for _ in report(range(2), "work", progress):
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fails(progress=True)
    assert not tqdm[1].open


def test_functions_of_ours_show_a_bar(tqdm: list[Recorded], monkeypatch: pytest.MonkeyPatch) -> None:
    graph = planted((4, 4), seed=0)[0]
    find_modules(graph, epsilon=1.0, n_null=4, progress=True)
    assert tqdm[0].said == [("modules", 5)]
    by_hand(monkeypatch)
    assert len(epsilon_profile(graph, [0.5, 1.0], resolution=1.0)) == 2
    assert [bar.said for bar in tqdm[1:]] == [[("loss scales", 2)]]
    assert not any(bar.open for bar in tqdm)


def test_missing_tqdm_is_an_error_only_where_a_bar_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Any:
        raise ImportError

    monkeypatch.setattr(bars, "_tqdm", missing)
    by_hand(monkeypatch)
    assert work(3) == 3
    with pytest.raises(InputError, match="pip install tqdm"):
        work(3, progress=True)


def test_every_public_function_with_progress_takes_true() -> None:
    found = [getattr(interbasis.analysis, name) for name in interbasis.analysis.__all__]
    long = [f for f in found if inspect.isfunction(f) and "progress" in inspect.signature(f).parameters]
    assert len(long) > 15
    assert [f.__name__ for f in long if "@with_bar\n" not in inspect.getsource(f)] == []


def test_small_models_take_one_thread_and_the_number_is_put_back() -> None:
    """Of a model, of a network, of a checkpoint; large models and what holds none keep what is set."""
    seen: list[int] = []

    @with_bar
    def count(*_: object, progress: object = None) -> None:
        seen.append(torch.get_num_threads())
        if len(seen) == 6:
            raise ValueError("stop")

    small, large = torch.nn.Linear(3, 2), torch.nn.Linear(1000, 1000)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        count(small)
        count(SimpleNamespace(model=small))
        count(SimpleNamespace(network=SimpleNamespace(model=small)))
        count(large)
        count()
        with pytest.raises(ValueError, match="stop"):
            count(small)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 1, 1, 3, 3, 1]
