"""Finding video files and the subtitle files that belong to them."""

from __future__ import annotations

from pathlib import Path

from hero_sdk.errors import InputError, SubtitleError

# fmt: off
VIDEO_SUFFIXES = frozenset((
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
    ".mpg", ".mts", ".ogv", ".ts", ".vob", ".webm", ".wmv",
))
# fmt: on
SUBTITLE_SUFFIXES = (".srt", ".vtt")
SUBTITLE_FOLDER = "subtitles"


def find_videos(folder: Path | str) -> list[Path]:
    """The video files of a folder and of all folders below it, sorted by path; hidden files and folders are left out.

    Raises:
        InputError: not a folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected the folder that holds the videos.")
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )


def find_sidecar(video: Path | str, folder: Path | str | None = None) -> Path | None:
    """The subtitle file of a video: the file of the same name but for the suffix, .srt before .vtt.

    Args:
        video: the video file.
        folder: where to look. None: beside the video, then in a folder ``subtitles`` there, then in a folder
            ``subtitles`` beside the video's folder.

    Returns:
        The file, or None when there is none.

    Raises:
        SubtitleError: a folder that cannot be read, so that nobody knows.
    """
    video = Path(video)
    parent = video.absolute().parent
    folders = [parent, parent / SUBTITLE_FOLDER, parent.parent / SUBTITLE_FOLDER] if folder is None else [Path(folder)]
    for place in folders:
        if not place.is_dir():
            continue
        if (file := subtitle_files(place).get(video.stem)) is not None:
            return file
    return None


def subtitle_files(folder: Path | str) -> dict[str, Path]:
    """The subtitle files of a folder by their names without suffix, .srt before .vtt.

    Raises:
        SubtitleError: a folder that cannot be read.
    """
    try:
        files = sorted(Path(folder).iterdir())
    except OSError as error:
        raise SubtitleError(
            f"The folder {folder} cannot be searched for subtitles ({error}). Check its permissions, or say which subtitles "
            "to use."
        ) from error
    # Suffixes are compared in lower case, so that EPISODE.SRT is found where file names are case-sensitive.
    found: dict[str, Path] = {}
    for suffix in SUBTITLE_SUFFIXES:
        for file in files:
            if file.suffix.lower() == suffix and file.is_file():
                found.setdefault(file.stem, file)
    return found
