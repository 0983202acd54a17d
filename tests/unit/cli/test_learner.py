"""What `headrace learner replay` says."""

from __future__ import annotations

from dataclasses import replace

from headrace.cli.learner import line
from headrace.learner.replay import Replay

SAME = Replay("000012", "forest", True, True, 13, 0, 1234, 1234, 0, "state", "state")


def test_the_line_of_a_replay() -> None:
    assert line(SAME, 2.34) == (
        "version 000012 (forest): the same to the bit; 1,234 outcomes of 13 order logs learned again in 2.3 s"
    )
    assert line(replace(SAME, from_history=1000), 1).endswith(
        "; 234 outcomes of 13 order logs learned again in 1.0 s, on top of the 1,000 events of the bootstrap"
    )
    for changed, said in (
        (replace(SAME, equal=False), "the model differs from its snapshot"),
        (replace(SAME, onnx_equal=False), "the ONNX file differs from the announced one"),
        (replace(SAME, duplicates=2), "2 outcomes are recorded twice"),
        (replace(SAME, recorded_count=1235), "1,235 outcomes were announced"),
    ):
        assert not changed.same
        assert line(changed, 1).startswith(f"version 000012 (forest): NOT the same: {said}; ")
