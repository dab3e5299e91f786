"""HERO SDK: find the moment of a video that a sentence describes.

    import hero_sdk

    hero = hero_sdk.load("bundle/")                      # in this process
    hero = hero_sdk.connect("grpc://localhost:8001")     # or on a Triton server
    corpus = hero.corpus("corpus/")
    corpus.add("episode.mp4", "episode.srt")
    for moment in corpus.search("the robot takes the red gem"):
        print(moment.video_id, moment.start, moment.end, moment.score)

Names are resolved when they are first used, so that ``import hero_sdk`` costs milliseconds and imports no engine.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hero_sdk.errors import (
    BundleError,
    CorpusError,
    EngineError,
    FingerprintError,
    HeroError,
    HubError,
    InputError,
    MediaError,
    MissingPackageError,
    ServerError,
    SignatureError,
    SubtitleError,
)

if TYPE_CHECKING:
    from hero_sdk.corpus import AddResult, Corpus
    from hero_sdk.hero import Hero
    from hero_sdk.opening import connect, load
    from hero_sdk.subtitles import read_subtitles
    from hero_sdk.types import (
        Answer,
        BoolArray,
        Caption,
        EncodedVideo,
        FloatArray,
        IntArray,
        Judgement,
        Moment,
        Query,
        Subtitle,
        VideoHit,
    )
    from hero_sdk.video_features import VideoFeatures

    __version__: str

__all__ = [
    "AddResult",
    "Answer",
    "BoolArray",
    "BundleError",
    "Caption",
    "Corpus",
    "CorpusError",
    "EncodedVideo",
    "EngineError",
    "FingerprintError",
    "FloatArray",
    "Hero",
    "HeroError",
    "HubError",
    "InputError",
    "IntArray",
    "Judgement",
    "MediaError",
    "MissingPackageError",
    "Moment",
    "Query",
    "ServerError",
    "SignatureError",
    "Subtitle",
    "SubtitleError",
    "VideoFeatures",
    "VideoHit",
    "__version__",
    "connect",
    "load",
    "read_subtitles",
]

_LAZY = {
    "hero_sdk.corpus": ("AddResult", "Corpus"),
    "hero_sdk.hero": ("Hero",),
    "hero_sdk.opening": ("connect", "load"),
    "hero_sdk.subtitles": ("read_subtitles",),
    "hero_sdk.types": (
        "Answer",
        "BoolArray",
        "Caption",
        "EncodedVideo",
        "FloatArray",
        "IntArray",
        "Judgement",
        "Moment",
        "Query",
        "Subtitle",
        "VideoHit",
    ),
    "hero_sdk.video_features": ("VideoFeatures",),
}
_HOME = {name: module for module, names in _LAZY.items() for name in names}


def _rehome(value: object) -> None:
    """A traceback and a help text name a public class by where users import it from."""
    if isinstance(value, type) and value.__module__.startswith(__name__):
        value.__module__ = __name__


for _name in __all__:
    _rehome(globals().get(_name))
del _name


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("hero-video-sdk")
        globals()[name] = value
        return value
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # The types come along, for the annotations of a re-homed dataclass are looked up in this namespace.
    for home in ("hero_sdk.types", _HOME[name]):
        module = importlib.import_module(home)
        for sibling in _LAZY[home]:
            globals()[sibling] = getattr(module, sibling)
            _rehome(globals()[sibling])
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
