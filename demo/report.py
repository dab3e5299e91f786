"""The report: one HTML file with the metrics, and for a few queries the relevance over time and pictures of what was found."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from demo.judge import Answer, annotated_id
from hero_sdk import EncodedVideo, Hero, Moment
from hero_sdk.media import frame_at
from hero_train.data.annotations import MomentQuery

TEMPLATE = "report.html.jinja"
THUMBNAIL_HEIGHT = 112  # pixels
FOUND, ANNOTATED = "#c2410c", "#15803d"


@dataclass(frozen=True)
class Picture:
    """A frame of a moment: when it is on display (seconds), and a JPEG file as a data URL."""

    time: float
    url: str


@dataclass(frozen=True)
class Example:
    """A query with what was found: a plot (SVG), and pictures of the moment."""

    answer: Answer
    plot: str
    pictures: Sequence[Picture]


def make_example(hero: Hero, answer: Answer, videos: Path) -> Example:
    """Plot the relevance of the best video's clips over time, and take three pictures out of the moment found.

    Args:
        hero: what encodes the video and the query.
        answer: the query with its moments.
        videos: folder of the video files.
    """
    best = answer.moments[0]
    path = videos / best.video_id
    video = hero.encode_video(path)
    length = best.end - best.start
    times = [best.start + share * length for share in (0.15, 0.5, 0.85)]
    pictures = [Picture(time, _jpeg(Image.fromarray(frame_at(path, time, THUMBNAIL_HEIGHT)))) for time in times]
    return Example(answer, _plot(hero, answer.query, best, video), pictures)


def write_report(
    path: Path,
    *,
    examples: Sequence[Example],
    metrics: Mapping[str, Mapping[str, float]],
    chance: Mapping[str, float],
    columns: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Write the HTML file.

    Args:
        path: of the file.
        examples: the queries to show.
        metrics: recalls by query type.
        chance: recalls of guessing.
        columns: heading of each metric that is shown.
        facts: what else to say, as name and value.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    page = environment.get_template(TEMPLATE).render(
        examples=examples, metrics=metrics, chance=chance, columns=columns, facts=facts
    )
    path.write_text(page, encoding="utf-8")


def _plot(hero: Hero, query: MomentQuery, best: Moment, video: EncodedVideo) -> str:
    figure = Figure(figsize=(8, 1.9), layout="constrained")
    axes = figure.subplots()
    relevance = hero.relevance(query.text, video)
    edges = [min(clip * video.clip_interval, video.duration) for clip in range(len(relevance) + 1)]
    axes.stairs(relevance, edges, color="#1d4ed8", linewidth=1.6, baseline=None)
    low, high = float(relevance.min()) - 0.08, 1.08
    axes.axvspan(best.start, best.end, ymax=0.93, color=FOUND, alpha=0.16, linewidth=0)
    if query.video_id == annotated_id(best.video_id):
        axes.plot(query.moment, [high - 0.03] * 2, color=ANNOTATED, linewidth=4, solid_capstyle="butt")
    axes.set(xlim=(0, video.duration), ylim=(low, high), xlabel="seconds", ylabel="relevance (cosine)")
    axes.spines[["top", "right"]].set_visible(False)
    out = io.StringIO()
    # Without a date and with fixed ids, equal runs write equal files.
    with rc_context({"svg.hashsalt": "hero", "svg.fonttype": "none"}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()[out.getvalue().index("<svg") :]


def _jpeg(image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
