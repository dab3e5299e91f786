"""From videos, subtitles and annotations to batches."""
