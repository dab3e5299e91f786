"""The LanceDB table under a corpus: commits, durability, the vector index and reading.

Only this module talks to LanceDB. Its errors are RuntimeError, ValueError or OSError without a type of their own; here
they become CorpusError with the folder in the message.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from hero_sdk.corpus.rows import SEARCH_COLUMNS, Candidates, Identity, check_video_id, corpus_schema
from hero_sdk.errors import CorpusError, InputError, require
from hero_sdk.types import FloatArray

logger = logging.getLogger(__name__)

TABLE = "videos"
INDEX = "vector_idx"

INDEX_FROM = 4096
"""Videos from which on a vector index pays: below, a flat search takes milliseconds."""

CLIPS_PER_PARTITION = 4096

REINDEX_AFTER = 1000
"""Videos outside the index that slow a query down enough (51 to 205 ms at a million clips) to index them."""

COMPACT_AFTER = 64
"""Fragments (one per added video) from which on a table is compacted, and more for a large one: see ``_fragment_limit``."""

CREATION_SECONDS = 1.0
"""How long a table may take from its folder to its first commit, which is a few milliseconds."""

KEEP_VERSIONS = timedelta(hours=1)
"""How long files of older versions stay, for readers in other processes that are in the middle of a query."""

SCAN_ROWS = 64
"""Videos per batch of a scan, which bounds its memory (5 MB for 50 clips of 768 each)."""


class VideoTable:
    """The table of a corpus folder. Use ``open``.

    Every read sees the latest commit of any process. Every write is one commit: all of it or nothing.
    """

    def __init__(self, path: Path, table: Any) -> None:
        self.path = path
        self._table = table
        self.identity = Identity.from_metadata(table.schema.metadata, str(path))
        self._synced = set(self._files())

    @classmethod
    def open(cls, path: str | os.PathLike[str], create: Identity | None = None) -> VideoTable:
        """Open the table in a folder.

        Args:
            path: the corpus folder.
            create: what to bind a new corpus to when there is none. None: that is an error.

        Raises:
            CorpusError: no corpus in the folder, something else in it, or a corpus that cannot be read.
        """
        path = Path(path)
        lancedb = require("lancedb", "corpus", "keep a corpus")
        # In this order: what another process makes in between is a corpus, not something else.
        occupied = path.exists() and not (path.is_dir() and not any(path.iterdir()))
        exists = (path / f"{TABLE}.lance").is_dir()
        if not exists and create is None:
            raise CorpusError(f"{path} holds no corpus. Check the path, or make one with `hero index`.")
        if not exists and occupied:
            raise CorpusError(f"{path} exists and is no corpus; choose a folder that is empty or does not exist yet.")
        with _corpus_errors(path, "opened"):
            path.mkdir(parents=True, exist_ok=True)
            # Zero: each read looks for commits of other processes first (a fraction of a millisecond).
            database = lancedb.connect(str(path.resolve()), read_consistency_interval=timedelta(0))
            if exists or create is None:
                table = _open_table(database, CREATION_SECONDS if create is not None else 0)
            else:
                # exist_ok: another process may have made it meanwhile; its identity is read back and compared above.
                table = database.create_table(TABLE, schema=corpus_schema(create), exist_ok=True)
        opened = cls(path, table)
        if not exists:
            opened._synced.clear()
            opened._sync()
        return opened

    def count(self, video_id: str | None = None) -> int:
        """How many videos there are, or how many (0 or 1) have this id."""
        with _corpus_errors(self.path, "read"):
            return int(self._table.count_rows(None if video_id is None else _equals([video_id])))

    def column(self, *names: str) -> list[dict[str, Any]]:
        """Some columns of all videos, one dictionary per video, sorted by id."""
        with _corpus_errors(self.path, "read"):
            rows = self._table.search().select(["video_id", *names]).to_arrow().to_pylist()
        return sorted(rows, key=lambda row: row["video_id"])

    def insert(self, row: Any, replace: bool) -> None:
        """Add the row of one video in one commit.

        Raises:
            InputError: the id is there already and ``replace`` is off.
        """
        with _corpus_errors(self.path, "written"):
            merge = self._table.merge_insert("video_id").when_not_matched_insert_all()
            result = (merge.when_matched_update_all() if replace else merge).execute(row)
        if not result.num_inserted_rows + result.num_updated_rows:
            raise self.already_there(row["video_id"][0].as_py())
        self._after_write()

    def already_there(self, video_id: str) -> InputError:
        """The error for a second video of this id."""
        return InputError(
            f"The corpus {self.path} has a video {video_id!r} already. "
            "Pass replace=True to replace it, remove it first, or choose another video_id."
        )

    def not_there(self, video_ids: Collection[str]) -> InputError:
        """The error for ids that no video has."""
        return InputError(
            f"The corpus {self.path} has no video {', '.join(map(repr, sorted(video_ids)[:5]))}"
            f"{f' and {len(video_ids) - 5} more' if len(video_ids) > 5 else ''}. `hero videos` lists the ids."
        )

    def delete(self, video_ids: Sequence[str]) -> None:
        """Delete videos in one commit: all of them, or none when one is not there.

        Raises:
            InputError: there is none with one of these ids.
        """
        for video_id in video_ids:
            check_video_id(video_id)
        if missing := {video_id for video_id in video_ids if not self.count(video_id)}:
            raise self.not_there(missing)
        with _corpus_errors(self.path, "written"):
            result = self._table.delete(_equals(video_ids))
        if not result.num_deleted_rows:  # another process was quicker
            raise self.not_there(set(video_ids))
        self._after_write()

    def nearest(self, vector: FloatArray, limit: int) -> Candidates:
        """The videos whose best clip is nearest to a vector by cosine, with their embeddings, in one query.

        Distances come from quantised (index) or half-precision (flat) values, so ask for more than are needed and rank
        again.
        """
        with _corpus_errors(self.path, "searched"):
            query = self._table.search(vector, vector_column_name="vector").distance_type("cosine").limit(limit)
            # All partitions: at a million clips 41 ms instead of 30, and what the index left out is then next to nothing.
            table = query.nprobes(1 << 14).select([*SEARCH_COLUMNS, "_distance"]).to_arrow()
        return Candidates(table.select(list(SEARCH_COLUMNS)).combine_chunks(), self.identity.hidden_size)

    def scan(self, video_ids: Sequence[str] | None = None) -> Iterator[Candidates]:
        """All videos, or those with these ids, a few at a time."""
        chunks = [None] if video_ids is None else [video_ids[at : at + 1000] for at in range(0, len(video_ids), 1000)]
        for chunk in chunks:
            with _corpus_errors(self.path, "read"):
                query = self._table.search().select(list(SEARCH_COLUMNS))
                if chunk is not None:
                    query = query.where(_equals(chunk))
                batches = query.to_batches(SCAN_ROWS)
            while True:
                with _corpus_errors(self.path, "read"):
                    batch = next(batches, None)
                if batch is None:
                    break
                if batch.num_rows:
                    yield Candidates.join([batch], self.identity.hidden_size)

    def optimize(self) -> None:
        """Merge small files, drop old versions, and build or extend the vector index where there are enough videos.

        Of two processes that do so at once, one does it for both.
        """
        lancedb = require("lancedb", "corpus", "keep a corpus")
        with _corpus_errors(self.path, "optimised"), _unless_another_does(self.path):
            videos = self._table.count_rows()
            if videos >= INDEX_FROM and self._unindexed() is None:
                clips = sum(self._table.search().select(["clips"]).to_arrow()["clips"].to_pylist())
                logger.info("Building the vector index of %s over %d clips of %d videos.", self.path, clips, videos)
                # The automatic number of partitions would count videos and not clips.
                config = lancedb.index.IvfRq(
                    distance_type="cosine", num_partitions=max(1, clips // CLIPS_PER_PARTITION), num_bits=4
                )
                self._table.create_index("vector", config=config, name=INDEX)
            self._table.optimize(cleanup_older_than=KEEP_VERSIONS)
        self._sync()

    def _after_write(self) -> None:
        self._sync()
        with _corpus_errors(self.path, "read"):
            stats = self._table.stats()
            unindexed = self._unindexed()
        videos = stats["num_rows"]
        pending = REINDEX_AFTER if unindexed is None and videos >= INDEX_FROM else unindexed or 0
        if pending >= REINDEX_AFTER or stats["fragment_stats"]["num_fragments"] >= _fragment_limit(videos):
            self.optimize()

    def _unindexed(self) -> int | None:
        """Videos outside the vector index; None without an index."""
        if not any(index.name == INDEX for index in self._table.list_indices()):
            return None
        return int(self._table.index_stats(INDEX).num_unindexed_rows)

    def _files(self) -> Iterator[str]:
        for folder, _, names in os.walk(self.path):
            yield folder
            yield from (os.path.join(folder, name) for name in names)

    def _sync(self) -> None:
        """Flush the files that the last commit wrote, which LanceDB leaves to the operating system."""
        files = set(self._files())
        fresh = files - self._synced
        for name in sorted(fresh | {os.path.dirname(name) for name in fresh}):
            try:
                handle = os.open(name, os.O_RDONLY)
            except (FileNotFoundError, PermissionError):
                continue  # cleaned up by another process meanwhile, or a system that cannot open folders
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        self._synced = files


def _fragment_limit(videos: int) -> int:
    # Compaction rewrites what it merges; a limit that grows with the table keeps that work per added video constant.
    return max(COMPACT_AFTER, videos // COMPACT_AFTER)


def _open_table(database: Any, patience: float) -> Any:
    """Open the table; where another process may be making it at this moment, wait some seconds for its first commit."""
    end = time.monotonic() + patience
    while True:
        try:
            return database.open_table(TABLE)
        except ValueError:  # "not found", although its folder is there
            if time.monotonic() >= end:
                raise
        time.sleep(0.02)


def _equals(video_ids: Sequence[str]) -> str:
    quoted = ["'" + video_id.replace("'", "''") + "'" for video_id in video_ids]
    return f"video_id IN ({', '.join(quoted)})"


@contextmanager
def _unless_another_does(path: Path) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "commit conflict" not in str(error):
            raise
        logger.debug("Another process tidies up %s at the same moment (%s).", path, error)


@contextmanager
def _corpus_errors(path: Path, action: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise CorpusError(
            f"The corpus {path} cannot be {action}: {reason[:300]}. "
            "Check the disk and the permissions; a damaged corpus must be indexed again into a new folder."
        ) from error
