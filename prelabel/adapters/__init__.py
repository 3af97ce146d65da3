"""Predictions in the formats of annotation tools and data libraries: one file a format, each with one `FORMAT`.

`base` says what a format is, `rows` reads predictions and their images in bounded memory, `pictures` names image files.
Formats do not know each other.
"""
