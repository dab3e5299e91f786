"""``hero-train prepare``: a training set from what a data set's authors release, or from somebody's own files.

schemas/        what the annotations of each release look like, one reader per schema
tables          rows of JSON Lines, CSV and JSON files
stores          rows of the authors' text LMDBs
records         an annotation in the one form in which this project reads it
annotations     the splits: read, checked, cut into pieces
features        where frame features come from: videos, arrays, the authors' LMDBs, another prepared set
subtitles       where subtitles come from
pieces          long videos in pieces of a minute
report          what was kept, mended and dropped
preparation     all of it, written so that it is whole or absent
command         the command line
"""
