"""One HTML page about predictions that opens from disk and asks for nothing else.

    predictions -> rows, labels, duplicates -> figures, sheets -> thumbnails -> charts, sections -> page

`prelabel.report.make` is the whole line. A row costs about 30 bytes of memory while the page is made, whatever the
number of classes; ids, paths and probabilities are read for the rows that are shown.
"""
