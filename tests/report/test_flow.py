"""The flow figure: every cluster and every flow is drawn, the same bytes each time."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np

from medstrata.evidence.comparison import compare_labels
from medstrata.report.flow import _places, _right_order, flow_figure


def test_a_band_for_each_flow_and_a_bar_for_each_cluster() -> None:
    first = np.array([0] * 6 + [1] * 5 + [2] * 4 + [-1])
    second = np.array([1] * 6 + [0] * 5 + [0] + [2] * 2 + [3] + [-1])
    compared = compare_labels(first, second)
    content = flow_figure(compared)
    patches = [one for one in ElementTree.fromstring(content).iter() if one.get("id", "").startswith("patch_")]
    flows, bars = int((compared.counts > 0).sum()), 4 + 5
    assert len(patches) == flows + bars + 1  # and the ground of the figure
    assert content == flow_figure(compared)
    assert b"#0072b2" in content and b"#52606d" in content  # the new cluster 3 has the colour of none


def test_partners_stand_side_by_side() -> None:
    compared = compare_labels(np.array([0, 0, 1, 1, 2, 2, 2, -1]), np.array([7, 7, 5, 5, 3, 3, 4, -1]))
    assert [compared.second_numbers[place] for place in _right_order(compared)] == [7, 5, 3, 4, -1]


def test_bars_fill_the_height_and_keep_their_shares() -> None:
    places = _places(np.array([3, 1]))
    heights = places[:, 1] - places[:, 0]
    assert places[0, 0] == 0 and np.isclose(places[-1, 1], 1) and np.isclose(heights[0], 3 * heights[1])
    many = _places(np.ones(300, dtype=np.int64))
    assert (np.diff(many, axis=1) > 0).all() and np.isclose(many[-1, 1], 1)


def test_one_cluster_and_nothing_but_rejected_images_can_be_drawn() -> None:
    for numbers in (np.zeros(3, int), np.full(3, -1)):
        assert flow_figure(compare_labels(numbers, numbers)).startswith(b"<?xml")
