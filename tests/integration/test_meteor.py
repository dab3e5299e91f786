"""METEOR itself, where there is Java."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hero_train.caption_metrics import METEOR, caption_scores


@pytest.mark.slow  # METEOR reads sixty megabytes of paraphrases before it begins
def test_all_scores_are_the_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """See tests/unit/test_caption_metrics.py. On a machine without Java METEOR must be absent, and everything else there."""
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Duser.language=de -Duser.country=DE")  # where numbers have a comma
    scored = json.loads((Path(__file__).parents[1] / "data" / "coco_caption.json").read_text("utf-8"))["scored"]
    found = caption_scores(scored["predictions"], scored["references"])
    expected = scored["scores"]
    if shutil.which("java") is None:
        assert set(found.absent) == {METEOR}
        del expected[METEOR]
    assert found.metrics == pytest.approx(expected, rel=1e-12)
