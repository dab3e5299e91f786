"""Scores of captions: BLEU, ROUGE-L and CIDEr by the field's scorers (coco-caption), and METEOR where there is Java.

The scorers are those of the package ``pycocoevalcap``, which the field reports; what they count are ``caption_tokens``. METEOR
exists as a Java program only: without ``java`` it is reported as absent, and no other number takes its place.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from hero_sdk.errors import require
from hero_train.caption_tokens import caption_tokens
from hero_train.errors import DataError
from hero_train.evaluation import Metrics

METEOR = "METEOR"
BLEU = ("BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4")
CAPTION_METRICS = (*BLEU, METEOR, "ROUGE-L", "CIDEr")
"""The names of what an evaluation of captions measures."""

Tokenised = dict[str, list[str]]
"""Sentences by id, their tokens with one space between: what the scorers take."""


@dataclass(frozen=True)
class CaptionScores:
    """Scores of captions by the names in ``CAPTION_METRICS``.

    Attributes:
        metrics: BLEU, METEOR and ROUGE-L in [0, 1], CIDEr in [0, 10]. Tables of the field have a hundred times that.
        absent: why a metric is missing, by its name.
        moments: scores of single moments, in the order of the references, for the metrics that are a mean of these.
    """

    metrics: Metrics
    absent: dict[str, str] = field(default_factory=dict)
    moments: dict[str, list[float]] = field(default_factory=dict)


def caption_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, meteor: bool = True
) -> CaptionScores:
    """Score captions against what people wrote; see ``score_captions``."""
    return score_captions({"": predictions}, references, meteor=meteor)[""]


def score_captions(
    systems: Mapping[str, Mapping[str, str]], references: Mapping[str, Sequence[str]], *, meteor: bool = True
) -> dict[str, CaptionScores]:
    """Score the captions of several systems against the same references.

    METEOR takes long to start (it reads a large table of paraphrases), and so starts once for all of them.

    Args:
        systems: for each system one caption per moment, by the moment's id.
        references: one or more captions per moment.
        meteor: whether to ask for METEOR.

    Raises:
        DataError: no moment, a moment without reference, without prediction or with a prediction that nobody asked for.
        MissingPackageError: ``pycocoevalcap`` is not installed.
    """
    expected = {moment: _tokenised(captions) for moment, captions in references.items()}
    written = {name: _checked(captions, references) for name, captions in systems.items()}
    bleu, rouge, cider = (_scorers(name) for name in ("bleu", "rouge", "cider"))
    tables: dict[str, Metrics] = {}
    single: dict[str, dict[str, list[float]]] = {}
    means = {"ROUGE-L": rouge.Rouge, "CIDEr": cider.Cider}
    for name, captions in written.items():
        scores, _ = bleu.Bleu(4).compute_score(expected, captions, verbose=0)
        tables[name] = dict(zip(BLEU, map(float, scores), strict=True))
        single[name] = {}
        for metric, scorer in means.items():
            mean, values = scorer().compute_score(expected, captions)
            tables[name][metric], single[name][metric] = float(mean), [float(value) for value in values]
    absent = {}
    if not meteor:
        absent[METEOR] = "it was not asked for"
    elif (java := shutil.which("java")) is None:
        absent[METEOR] = "it is a Java program, and there is no `java` on this machine"
    else:
        try:
            for name, value in zip(written, _meteor(java, expected, written.values()), strict=True):
                tables[name][METEOR] = value
        except _MeteorFailed as error:
            absent[METEOR] = str(error)
    return {
        name: CaptionScores(
            {metric: table[metric] for metric in CAPTION_METRICS if metric in table}, absent, single[name]
        )
        for name, table in tables.items()
    }


def check_scorers() -> None:
    """Find out before a run, and not at its first evaluation, that captions cannot be scored.

    Raises:
        MissingPackageError: ``pycocoevalcap`` is not installed.
    """
    _scorers("cider")


def _checked(predictions: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> Tokenised:
    if not references:
        raise DataError("There is no caption to score: the references are empty. Pass the captions of a split.")
    for what, ids in (
        ("have no reference; take them out, or evaluate on a split that people have captioned", _without(references)),
        ("have no prediction; caption all of them", references.keys() - predictions.keys()),
        ("were captioned and have no reference; take them out", predictions.keys() - references.keys()),
    ):
        if ids:
            raise DataError(f"{len(ids)} of {len(references)} moments {what}. Such are {', '.join(sorted(ids)[:5])}.")
    return {moment: _tokenised([predictions[moment]]) for moment in references}


def _without(references: Mapping[str, Sequence[str]]) -> set[str]:
    return {moment for moment, captions in references.items() if not captions}


def _tokenised(captions: Iterable[str]) -> list[str]:
    return [" ".join(caption_tokens(caption)) for caption in captions]


def _scorers(name: str) -> ModuleType:
    return require(f"pycocoevalcap.{name}.{name}", "captions", "score captions")


class _MeteorFailed(Exception):
    """Java is there and METEOR did not come to an end."""


def _meteor(java: str, expected: Tokenised, systems: Iterable[Tokenised]) -> list[float]:
    """METEOR 1.5 of each system.

    By its own protocol: a line of captions is answered by a line of counts, and a line of all counts by one score per moment and
    one of all together. Not through the package's class: that leaves its pipes open, waits for ever in its destructor after a
    failure, and cannot read the numbers of a METEOR that writes them with a comma, as Java does in many languages.
    """
    archive = Path(str(_scorers("meteor").__file__)).with_name("meteor-1.5.jar")
    settings = ["-Xmx2G", "-Duser.language=en", "-Duser.country=US"]
    command = [java, *settings, "-jar", str(archive), "-", "-", "-stdio", "-l", "en", "-norm"]
    asked = [
        [" ||| ".join(["SCORE", *captions, *system[moment]]) for moment, captions in expected.items()]
        for system in systems
    ]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
    ) as process:
        try:
            counts = [[_answer(process, line) for line in lines] for lines in asked]
            output, _ = process.communicate("".join(" ||| ".join(["EVAL", *lines]) + "\n" for lines in counts))
        except OSError as error:
            raise _MeteorFailed(f"METEOR ended early ({error}); it takes 2 GB of memory") from error
        finally:
            process.kill()
            assert process.stdin is not None
            with suppress(OSError):
                process.stdin.close()
    every = len(expected) + 1
    try:
        scores = [float(line) for line in output.split()]
    except ValueError as error:
        raise _MeteorFailed(f"METEOR says what is no score ({error})") from error
    if len(scores) != every * len(asked):
        raise _MeteorFailed(f"METEOR gave {len(scores)} scores; expected {every * len(asked)}")
    return scores[every - 1 :: every]


def _answer(process: subprocess.Popen[str], line: str) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    if not (answer := process.stdout.readline()):
        raise _MeteorFailed(f"METEOR ended early, with code {process.wait()}; it takes 2 GB of memory")
    return answer.strip()
