"""Words and scores of captions against the field's own: ``tests/data/coco_caption.json`` holds what coco-caption gives.

It was made once with pycocoevalcap 1.2 on Java 17: the tokens by its PTBTokenizer, the scores by its scorers on those tokens.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hero_sdk.errors import MissingPackageError
from hero_train.caption_metrics import CAPTION_METRICS, METEOR, caption_scores, score_captions
from hero_train.caption_tokens import caption_tokens
from hero_train.errors import DataError

FIELD: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "coco_caption.json").read_text("utf-8"))
PREDICTIONS: dict[str, str] = FIELD["scored"]["predictions"]
REFERENCES: dict[str, list[str]] = FIELD["scored"]["references"]


@pytest.mark.parametrize("sentence", FIELD["tokens"], ids=lambda sentence: sentence["text"][:20])
def test_the_words_are_those_of_the_fields_tokenizer(sentence: dict[str, Any]) -> None:
    assert caption_tokens(sentence["text"]) == sentence["tokens"]


def test_characters_beyond_ascii_count_as_spaces() -> None:
    assert caption_tokens("Zoë doesn’t say “hi”…") == ["zo", "doesn", "t", "say", "hi"]


@pytest.mark.parametrize("text", ["", "  ", "... -- !", "“”"])
def test_a_caption_without_words(text: str) -> None:
    assert caption_tokens(text) == []


def test_the_scores_are_those_of_the_fields_scorers() -> None:
    found = caption_scores(PREDICTIONS, REFERENCES, meteor=False)
    expected = {name: value for name, value in FIELD["scored"]["scores"].items() if name != METEOR}
    assert found.metrics == pytest.approx(expected, rel=1e-12)
    assert set(found.metrics) | {METEOR} == set(CAPTION_METRICS)


def test_what_people_wrote_themselves_scores_highest() -> None:
    perfect = {moment: captions[0] for moment, captions in REFERENCES.items()}
    metrics = caption_scores(perfect, REFERENCES, meteor=False).metrics
    assert [metrics[name] for name in ("BLEU-1", "BLEU-4", "ROUGE-L")] == pytest.approx([1, 1, 1], rel=1e-6)
    assert metrics["CIDEr"] > FIELD["scored"]["scores"]["CIDEr"]


def test_several_systems_are_scored_as_each_alone() -> None:
    other = dict.fromkeys(REFERENCES, "a robot")
    both = score_captions({"model": PREDICTIONS, "other": other}, REFERENCES, meteor=False)
    assert both["model"] == caption_scores(PREDICTIONS, REFERENCES, meteor=False)
    assert both["other"] == caption_scores(other, REFERENCES, meteor=False)


def test_the_order_of_moments_does_not_matter() -> None:
    backwards = dict(reversed(list(REFERENCES.items())))
    assert caption_scores(PREDICTIONS, backwards, meteor=False).metrics == pytest.approx(
        caption_scores(PREDICTIONS, REFERENCES, meteor=False).metrics
    )


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"1": "a"}, {}, "no caption to score: the references are empty"),
        ({"1": "a", "2": "b"}, {"1": ["a"], "2": []}, r"1 of 2 moments have no reference; .* Such are 2\."),
        ({"1": "a"}, {"1": ["a"], "2": ["b"]}, r"1 of 2 moments have no prediction; caption all of them. Such are 2\."),
        ({"1": "a", "3": "c"}, {"1": ["a"]}, r"1 of 1 moments were captioned and have no reference; .* Such are 3\."),
    ],
)
def test_what_cannot_be_scored_is_named(
    predictions: dict[str, str], references: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        caption_scores(predictions, references)


def test_without_the_scorers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap", None)
    for name in [name for name in sys.modules if name.startswith("pycocoevalcap.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError, match=r"needed to score captions.*hero-video-sdk\[captions\]"):
        caption_scores(PREDICTIONS, REFERENCES)


# METEOR's protocol: a line of counts for each line of captions, then for all counts a score each and one of all.
SPEAKS = """
for line in sys.stdin:
    command, *rest = line.rstrip("\\n").split(" ||| ")
    if command == "SCORE":
        print(len(rest), flush=True)
    else:
        print("\\n".join(["0.5"] * len(rest) + [str(sum(map(int, rest)))]), flush=True)
"""


def fake_java(folder: Path, body: str) -> None:
    program = folder / "java"
    record = f"open({str(folder / 'arguments')!r}, 'w').write(' '.join(sys.argv[1:]))"
    program.write_text(f"#!{sys.executable}\nimport sys\n{record}\n{body}", encoding="utf-8")
    program.chmod(0o755)


def test_meteor_is_asked_once_for_all_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a program in Java's place that adds up how many captions it is shown."""
    fake_java(tmp_path, SPEAKS)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = score_captions({"one": PREDICTIONS, "two": PREDICTIONS}, REFERENCES)
    shown = float(sum(len(captions) + 1 for captions in REFERENCES.values()))
    assert [scores.metrics[METEOR] for scores in found.values()] == [shown, shown]
    assert tuple(found["one"].metrics) == CAPTION_METRICS
    assert not found["one"].absent
    arguments = (tmp_path / "arguments").read_text()
    # Whatever language the machine speaks, its numbers must be readable.
    assert "-Duser.language=en" in arguments
    assert arguments.endswith("meteor-1.5.jar - - -stdio -l en -norm")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("sys.exit(3)", "METEOR ended early"),
        ("sys.stdin.readline()\nsys.exit(3)", "METEOR ended early, with code 3; it takes 2 GB of memory"),
        ("print('Error: no memory')\nsys.exit(1)", "METEOR ended early"),
        ("for _ in sys.stdin: print('5', flush=True)", r"METEOR gave 1 scores; expected 6"),
        ("for _ in sys.stdin: print('0,5', flush=True)", "METEOR says what is no score .*'0,5'"),
    ],
)
def test_a_meteor_that_fails_is_absent_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, reason: str
) -> None:
    fake_java(tmp_path, body)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = caption_scores(PREDICTIONS, REFERENCES)
    assert METEOR not in found.metrics
    assert set(found.absent) == {METEOR}
    assert re.match(reason, found.absent[METEOR])
    assert found.metrics == caption_scores(PREDICTIONS, REFERENCES, meteor=False).metrics


def test_without_java_meteor_is_absent_and_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = caption_scores(PREDICTIONS, REFERENCES)
    assert found.absent == {METEOR: "it is a Java program, and there is no `java` on this machine"}
    assert METEOR not in found.metrics
