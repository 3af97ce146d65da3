"""Trains a semi-supervised GAN: `python -m training --help`.

Reads from top to bottom: `config` (what to do), `dataset` (images and labels), `batches` (which of them in which step),
`augment`, `models` (D and G), `state` (every variable of a run), `losses`, `step` (one update of D and G), `train` (the
loop), `checkpoint`, `evaluate`.
"""
