"""The corpus: add videos, remove them, and find moments in all of them with a sentence."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hero_sdk.corpus.rows import Candidates, Identity, as_text, check_video_id, video_row
from hero_sdk.corpus.shortlist import Shortlist
from hero_sdk.corpus.table import VideoTable
from hero_sdk.errors import EngineError, FingerprintError, HeroError, InputError, ServerError
from hero_sdk.hero import SubtitleSource, VideoFeatures, check_top_k
from hero_sdk.moments import make_moments
from hero_sdk.spans import VIDEO_LIMIT, search_spans, video_similarity
from hero_sdk.types import EncodedVideo, FloatArray, Moment, Query, VideoHit

if TYPE_CHECKING:
    from hero_sdk.hero import Hero

OVERSAMPLING = 1.5
"""More candidates than are needed come from the approximate search, to be ranked again exactly."""

ENCODE_TOGETHER = 8
"""Videos of ``add_many`` that are packed into the same rows."""


@dataclass(frozen=True)
class AddResult:
    """What became of one video of ``Corpus.add_many``: ``error`` is None when it was added."""

    video_id: str
    video: str
    error: HeroError | None = None


class Corpus:
    """Embedded videos in a folder, made by ``Hero.corpus``.

    Several processes may have it open: each read sees what was committed last, and each write is one commit. Within one
    process threads may search at the same time, and one thread at a time may write through one object.

    Args:
        hero: what encodes videos and sentences.
        path: the folder.
        create: make it when it is not there.

    Raises:
        CorpusError: no corpus there, or one that cannot be read.
        FingerprintError: embedded by a bundle with another fingerprint.
    """

    def __init__(self, hero: Hero, path: str | os.PathLike[str], *, create: bool = True) -> None:
        manifest = hero.manifest
        wanted = Identity(manifest.fingerprint, manifest.model.hidden_size, manifest.model.clip_interval)
        self._hero = hero
        self._table = VideoTable.open(path, create=wanted if create else None)
        if (found := self._table.identity) != wanted:
            raise FingerprintError(
                f"The corpus {path} was embedded by the bundle {found.fingerprint} ({found.hidden_size} wide, clips of "
                f"{found.clip_interval} s) and this is the bundle {wanted.fingerprint} ({wanted.hidden_size} wide, clips "
                f"of {wanted.clip_interval} s). Their embeddings cannot be compared: search with the bundle that made "
                "the corpus, or index the videos again into a new folder."
            )

    @property
    def path(self) -> Path:
        """The folder."""
        return self._table.path

    def __len__(self) -> int:
        return self._table.count()

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and as_text(video_id) == video_id and self._table.count(video_id) > 0

    def video_ids(self) -> list[str]:
        """The ids of all videos, sorted."""
        return [row["video_id"] for row in self._table.column()]

    def add(
        self,
        video: str | os.PathLike[str],
        subtitles: SubtitleSource = None,
        *,
        video_id: str | None = None,
        replace: bool = False,
    ) -> str:
        """Encode a video file and add it, in one commit: afterwards it is there as a whole, or not at all.

        Args:
            video: a file that PyAV decodes, of any length.
            subtitles: a file, the subtitles themselves (``()`` for none), or None to look for them; see
                ``Hero.read_video``.
            video_id: any text. None: the name of the file without its suffix.
            replace: replace a video of this id, which is an error otherwise.

        Returns:
            The id.

        Raises:
            MediaError, SubtitleError: the video or its subtitles cannot be read.
            InputError: the id is there already.
            CorpusError: the folder cannot be written.
        """
        result = self.add_many([(video, subtitles, video_id)], replace=replace)[0]
        if result.error is not None:
            raise result.error
        return result.video_id

    def add_many(
        self,
        videos: Iterable[tuple[str | os.PathLike[str], SubtitleSource, str | None]],
        *,
        replace: bool = False,
        report: Callable[[AddResult], None] | None = None,
    ) -> list[AddResult]:
        """Add many videos; one that fails does not stop the others.

        A few at a time are encoded together, which is faster than one by one, and each is committed on its own.

        Args:
            videos: video, subtitles and id of each, as in ``add``.
            replace: replace videos whose id is there already. The second of two that have the same id here fails nevertheless.
            report: called with each result as soon as it is known.

        Returns:
            One result per video, in the order in which they were finished; look at ``error``.

        Raises:
            ServerError, CorpusError, BundleError, MissingPackageError: what would hit every video: the server is gone, the
                disk is full, a package is missing. What was reported until then is in the corpus.
        """
        results: list[AddResult] = []

        def finish(video_id: str, video: str, error: HeroError | None = None) -> None:
            results.append(AddResult(video_id, video, error))
            if report is not None:
                report(results[-1])

        waiting: list[tuple[str, str, VideoFeatures]] = []
        taken: set[str] = set()
        for video, subtitles, given in videos:
            source = os.fspath(video)
            video_id = Path(source).stem if given is None else given
            try:
                check_video_id(video_id)
                if video_id in taken:
                    raise InputError(
                        f"Two of these videos have the id {video_id!r}. Pass another video_id for one of them."
                    )
                if not replace and video_id in self:
                    raise self._table.already_there(video_id)
                waiting.append((video_id, source, self._hero.read_video(source, subtitles)))
                taken.add(video_id)
            except (InputError, EngineError) as error:
                _raise_if_general(error)
                finish(video_id, source, error)
            if len(waiting) == ENCODE_TOGETHER:
                self._add_waiting(waiting, replace, finish)
                waiting = []
        self._add_waiting(waiting, replace, finish)
        return results

    def add_encoded(
        self, video_id: str, video: EncodedVideo, *, source: str | None = None, replace: bool = False
    ) -> None:
        """Add a video that was encoded before, by the bundle of this corpus; errors as in ``add``.

        Args:
            video_id: any text.
            video: from ``Hero.encode_video`` or ``Hero.encode_features``; kept in half precision.
            source: where the video file is, for the user's information.
            replace: replace a video of this id.
        """
        stored = None if source is None else as_text(source)
        self._table.insert(video_row(video_id, video, stored, self._table.identity), replace)

    def remove(self, video_id: str) -> None:
        """Remove a video.

        Raises:
            InputError: there is none with this id.
        """
        self._table.delete([video_id])

    def search(
        self, text: str | Query, top_k: int = 10, *, videos: Iterable[str] | None = None, exact: bool = False
    ) -> list[Moment]:
        """Find the moments that a sentence describes.

        The best 100 videos by similarity are searched for spans; of spans of one video that overlap much, the best stays.
        Scores come from the stored embeddings, so they do not depend on the engine that embedded the videos.

        Args:
            text: a sentence, or one that was encoded.
            top_k: how many moments at most.
            videos: search these ids only. None: all.
            exact: compare with every clip instead of using the vector index (which finds nearly all).

        Returns:
            Best first; empty when the corpus is.

        Raises:
            InputError: an empty sentence, or an id that is not in the corpus.
        """
        check_top_k(top_k)
        query = self._hero.as_query(text)
        candidates = self._candidates(query.vector, VIDEO_LIMIT, videos, exact)
        if candidates is None:
            return []
        spans = search_spans(
            query.vector,
            query.span_vector,
            candidates.clip_embeddings,
            candidates.lengths,
            self._hero.manifest.require_moment(),
            top_k,
        )
        return make_moments(spans, candidates.describe)

    def search_videos(self, text: str | Query, top_k: int = 10, *, exact: bool = False) -> list[VideoHit]:
        """Find the videos that a sentence describes, by the cosine of their best clip; arguments as in ``search``."""
        check_top_k(top_k)
        query = self._hero.as_query(text)
        candidates = self._candidates(query.vector, max(top_k, VIDEO_LIMIT), None, exact)
        if candidates is None:
            return []
        similarity = video_similarity(query.vector, candidates.clip_embeddings, candidates.lengths)
        ids = candidates.video_ids
        return [VideoHit(ids[row], float(similarity[row])) for row in np.argsort(-similarity, kind="stable")[:top_k]]

    def optimize(self) -> None:
        """Merge small files and build or extend the vector index; happens by itself after many additions."""
        self._table.optimize()

    def _add_waiting(
        self,
        waiting: Sequence[tuple[str, str, VideoFeatures]],
        replace: bool,
        finish: Callable[[str, str, HeroError | None], None],
    ) -> None:
        try:
            encoded = self._hero.encode_many([features for _, _, features in waiting])
        except (InputError, EngineError) as error:
            _raise_if_general(error)
            if len(waiting) > 1:  # one of them is at fault; find out which
                for one in waiting:
                    self._add_waiting([one], replace, finish)
            else:
                finish(waiting[0][0], waiting[0][1], error)
            return
        for (video_id, source, _), video in zip(waiting, encoded, strict=True):
            try:
                self.add_encoded(video_id, video, source=source, replace=replace)
            except InputError as error:
                finish(video_id, source, error)
            else:
                finish(video_id, source, None)

    def _candidates(
        self, vector: FloatArray, limit: int, videos: Iterable[str] | None, exact: bool
    ) -> Candidates | None:
        """The ``limit`` most similar videos, sorted by id so that ties never depend on the order of the files."""
        if isinstance(videos, str):
            raise InputError(f"videos is the string {videos!r}; expected a list of ids.")
        chosen = None if videos is None else set(videos)
        for video_id in chosen or ():
            check_video_id(video_id)
        wanted = None if chosen is None else sorted(chosen)
        best = Shortlist(vector, limit)
        if wanted is None and not exact:
            best.add(self._table.nearest(vector, int(limit * OVERSAMPLING)))
            return best.result()
        missing = set(wanted or ())
        for part in self._table.scan(wanted):
            missing.difference_update(part.video_ids)
            best.add(part)
        if missing:
            raise self._table.not_there(missing)
        return best.result()


def _raise_if_general(error: HeroError) -> None:
    """A server that is gone is not the fault of the one video that met it first."""
    if isinstance(error, ServerError):
        raise error
