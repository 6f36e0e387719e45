"""The alluvial diagram: a bar per module and checkpoint, a ribbon per flow, heights in nodes."""

import numpy as np
import pytest
from cases_figures import facts_of, legend_of, partition_of, tracking_of
from matplotlib.colors import to_rgba

from interbasis.analysis.modules.tracking import Event, Tracking

TAB10 = ("tab:blue", "tab:orange")

ONE = partition_of([0, 0, 0, 1, 1], [0, 0, 0, 1])  # 6 and 3 nodes
OTHER = partition_of([0, 0, 1, 1, 2], [0, 0, 1, 2])  # 4, 3 and 2 nodes


@pytest.fixture(scope="module")
def split() -> Tracking:
    """Module 0 splits: 4 of its nodes stay, 2 become a new module; track 1 goes on."""
    flows = [[[4, 0, 2], [0, 3, 0]]]
    return tracking_of(ONE, OTHER, tracks=[(0, 1), (0, 1, 2)], flows=flows, events=[Event("split", 1, (0,), (0, 2))])


def bars_of(tracking: Tracking) -> list[tuple[int, float, float, tuple[float, ...]]]:
    """Checkpoint, lower and upper end, and colour of each bar."""
    bars = [bar for container in tracking.plot().axes[0].containers for bar in container]
    return [
        (
            round(bar.get_x() + bar.get_width() / 2),
            bar.get_y(),
            bar.get_y() + bar.get_height(),
            to_rgba(bar.get_facecolor()),
        )
        for bar in bars
    ]


def ribbons_of(tracking: Tracking) -> list[tuple[tuple[float, float], tuple[float, float], tuple[float, ...]]]:
    """Lower and upper end of each ribbon on its left and on its right, and its colour."""
    found = []
    for ribbon in tracking.plot().axes[0].collections:
        (path,) = ribbon.get_paths()
        x, y = path.vertices[:, 0], path.vertices[:, 1]
        left, right = (y[np.isclose(x, end)] for end in (x.min(), x.max()))
        found.append(
            (
                (float(left.min()), float(left.max())),
                (float(right.min()), float(right.max())),
                tuple(ribbon.get_facecolor()[0][:3]),
            )
        )
    return found


def test_bars_are_as_high_as_modules_have_nodes(split: Tracking) -> None:
    bars = bars_of(split)
    assert [(t, pytest.approx(top - bottom)) for t, bottom, top, _ in bars] == [(0, 6), (0, 3), (1, 4), (1, 3), (1, 2)]
    assert [text.get_text() for text in split.plot().axes[0].texts] == ["6", "3", "4", "3", "2"]


def test_bars_of_a_checkpoint_stand_apart_in_the_order_of_tracks(split: Tracking) -> None:
    for t, tracks in enumerate(split.tracks):
        here = [(bottom, top) for at, bottom, top, _ in bars_of(split) if at == t]
        from_top = [here[m] for m in np.argsort(tracks)]
        assert from_top[0][1] == pytest.approx(0)
        gaps = [upper[0] - lower[1] for upper, lower in zip(from_top[:-1], from_top[1:], strict=True)]
        np.testing.assert_allclose(gaps, 0.03 * 9)  # a share of all nodes


def test_bars_have_the_colour_of_their_track() -> None:
    swapped = tracking_of(ONE, ONE, tracks=[(0, 1), (1, 0)], flows=[[[0, 3], [3, 0]]])
    colours = [colour for *_, colour in bars_of(swapped)]
    expected = [to_rgba(TAB10[track]) for track in (0, 1, 1, 0)]
    np.testing.assert_allclose(colours, expected)
    tops = [top for *_, top, _ in bars_of(swapped)]
    assert tops[0] > tops[1]
    assert tops[2] < tops[3], "track 0 is above, whatever its module is called"


def test_ribbons_are_as_high_as_their_flow_on_both_sides(split: Tracking) -> None:
    ribbons = ribbons_of(split)
    assert [pytest.approx(high - low) for (low, high), *_ in ribbons] == [4, 2, 3]
    assert [pytest.approx(high - low) for _, (low, high), _ in ribbons] == [4, 2, 3]
    expected = [to_rgba(TAB10[track])[:3] for track in (0, 0, 1)]
    np.testing.assert_allclose([colour for *_, colour in ribbons], expected)


def test_ribbons_begin_and_end_in_the_bars_of_their_modules(split: Tracking) -> None:
    bars = {(t, i): ends for i, (t, *ends, _) in enumerate(bars_of(split))}
    joined = [((0, 0), (1, 2)), ((0, 0), (1, 4)), ((0, 1), (1, 3))]  # checkpoint and number of the bar
    for (left, right, _), ends in zip(ribbons_of(split), joined, strict=True):
        for (low, high), end in zip((left, right), ends, strict=True):
            bottom, top = bars[end]
            assert bottom - 1e-9 <= low <= high <= top + 1e-9
    (first, *_), (second, *_) = ribbons_of(split)[:2]
    assert first[0] >= second[1] - 1e-9, "two ribbons of one bar do not lie on each other"


def test_modules_without_flow_have_no_ribbon() -> None:
    apart = tracking_of(ONE, ONE, tracks=[(0, 1), (2, 3)], flows=[np.zeros((2, 2))])
    assert len(bars_of(apart)) == 4
    assert ribbons_of(apart) == []


def test_one_checkpoint_is_bars_alone() -> None:
    alone = tracking_of(ONE, tracks=[(0, 1)])
    axes = alone.plot().axes[0]
    assert len(bars_of(alone)) == 2
    assert not axes.collections
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0"]
    assert axes.get_xlabel() == "step"
    assert facts_of(alone.plot()) == "2 modules over 1 checkpoint, no events, numbers: nodes"


def test_one_module_is_one_bar_per_checkpoint() -> None:
    whole = partition_of([0, 0], [0])
    found = tracking_of(whole, whole, tracks=[(0,), (0,)], flows=[[[3]]])
    assert [(t, pytest.approx(top - bottom)) for t, bottom, top, _ in bars_of(found)] == [(0, 3), (1, 3)]
    assert facts_of(found.plot()).startswith("1 module over 2 checkpoints")


def test_title_counts_events_of_each_kind(split: Tracking) -> None:
    assert facts_of(split.plot()) == "3 modules over 2 checkpoints, 1 split, numbers: nodes"
    kinds = ["death", "birth", "birth", "merge", "merge"]
    events = [Event(kind, 1, (0,), (1,)) for kind in kinds]
    many = tracking_of(*[ONE] * 6, tracks=[(0, 1)] * 6, flows=[np.zeros((2, 2))] * 5, events=events)
    assert facts_of(many.plot()) == "2 modules over 6 checkpoints, 2 merges, 2 births, 1 death, numbers: nodes"


def test_long_names_of_checkpoints_are_folded() -> None:
    found = tracking_of(ONE, tracks=[(0, 1)])
    object.__setattr__(found, "names", ("checkpoint-0000123456.pt",))
    (label,) = found.plot().axes[0].get_xticklabels()
    assert label.get_text() == "checkpoint-000\n0123456.pt"


def test_checkpoints_stand_at_equal_distances_named_by_their_step(split: Tracking) -> None:
    axes = split.plot().axes[0]
    assert [
        (tick, label.get_text()) for tick, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
    ] == [
        (0, "0"),
        (1, "1,000"),
    ]
    assert legend_of(split.plot()) == ["module 0", "module 1", "module 2"]


def test_of_very_many_checkpoints_some_are_named() -> None:
    count = 200
    found = tracking_of(*[ONE] * count, tracks=[(0, 1)] * count, flows=[np.zeros((2, 2))] * (count - 1))
    figure = found.plot()
    assert figure.get_figwidth() == 14
    assert 10 < len(figure.axes[0].get_xticklabels()) < 25
