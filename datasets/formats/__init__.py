"""Readers of annotation formats, one format per file.

A format is a module with two functions. `splits(roots)` returns the names of
the splits that the folders or files `roots` hold, sorted. `read(roots, split)`
yields the images of one split in a fixed order: an `Annotation` for each that
can be read, and a `Problem` for everything else in the input. A mistake of the
user, such as an unknown split, is a `UserError` with the remedy. Images stay
unread and boxes unchecked: `convert.check` does both alike for all formats.
The command offers a format when `_READERS` in `convert/convert.py` names it.
"""
