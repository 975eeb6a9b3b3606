import re
from xml.etree import ElementTree as ET

import numpy as np

from scalepilot.report.charts.workload_picture import workload_picture
from scalepilot_envs.workloads import RateSeries


def test_each_part_is_drawn_after_the_one_before_with_its_figures():
    parts = {"training <a>": RateSeries(np.full(2000, 40.0), 86.4), "test": RateSeries(np.linspace(0, 200, 1000), 86.4)}
    picture = workload_picture(parts, "shop & co")
    texts = [t.text for t in ET.fromstring(picture).iter() if t.tag.endswith("text")]
    assert "shop & co" in texts
    at = max(i for i, text in enumerate(texts) if text == "training <a>" and texts[i + 1] == "40")
    assert texts[at + 1 : at + 5] == ["40", "40", "40", "2.0"]
    assert texts[at + 5 : at + 10] == ["test", "100", "198", "200", "1.0"]
    lines = [
        [tuple(map(float, p.split(","))) for p in points.split()] for points in re.findall(r'<polyline points="([^"]+)"', picture)
    ]
    assert len(lines) == 2
    assert max(x for x, _ in lines[0]) < min(x for x, _ in lines[1])
    # Two thirds of the width belong to two of three days.
    assert abs((lines[1][0][0] - 84) / (836 - 84) - 2 / 3) < 0.01
    assert len(lines[0]) + len(lines[1]) <= 402


def test_bands_reach_from_the_lowest_to_the_highest_step_of_a_bin():
    rates = np.tile([10.0, 90.0], 4000)
    picture = workload_picture({"all": RateSeries(rates, 60.0)}, "w")
    heights = {float(p.split(",")[1]) for p in re.search(r'<polygon points="([^"]+)"', picture).group(1).split()}
    mean = {float(p.split(",")[1]) for p in re.search(r'<polyline points="([^"]+)"', picture).group(1).split()}
    assert len(heights) == 2
    assert len(mean) == 1
    assert min(heights) < mean.pop() < max(heights)
