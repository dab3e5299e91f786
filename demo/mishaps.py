"""Bad input on the way, and the errors that a user gets."""

from __future__ import annotations

from pathlib import Path

import av
from rich.console import Console

import hero_sdk
from demo.shell import DemoError


def show(console: Console, bundle: Path, videos: Path, folder: Path) -> None:
    """Add what cannot be added to a corpus, print each error, and check that the corpus holds nothing of it.

    Args:
        console: where to print.
        bundle: of the model.
        videos: a folder with good videos.
        folder: to make the bad ones in.
    """
    folder.mkdir(parents=True)
    good = min(videos.glob("*.mp4"))
    silent, broken = folder / "sound_only.mp4", folder / "cut_off.mp4"
    write_sound_only(silent)
    broken.write_bytes(good.read_bytes()[:3000])
    with hero_sdk.load(bundle) as hero:
        corpus = hero.corpus(folder / "corpus")
        attempts = (
            ("a subtitle file that is not there", good, folder / "no_such_file.srt", hero_sdk.SubtitleError),
            ("a video without frames", silent, None, hero_sdk.MediaError),
            ("a video file that breaks off", broken, None, hero_sdk.MediaError),
        )
        for what, video, subtitles, expected in attempts:
            try:
                corpus.add(video, subtitles)
            except expected as error:
                console.print(f"[bold]{what}[/bold]", highlight=False)
                console.print(f"  {type(error).__name__}: {error}", style="red", highlight=False, markup=False)
            else:
                raise DemoError(f"{what} was taken without an error.")
        if len(corpus):
            raise DemoError(f"The corpus holds {corpus.video_ids()} after additions that failed; expected nothing.")


def write_sound_only(path: Path) -> None:
    """A second of silence in an mp4 file that has no video stream."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(16):
            frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts = 16000, number * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
