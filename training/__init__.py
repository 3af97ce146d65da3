"""Trains a semi-supervised GAN: `python -m training --help`.

Reads from top to bottom: `config` and `recipe` (what to do), `splits`, `selection`, `collect` and `dataset` (images and
labels), `batches` (which of them in which step), `augment`, `models` (D and G), `state` (every variable of a run),
`losses`, `step` (one update of D and G), `prior`, `probe` and `trust` (what the pile weighs), `plan` (what a run does),
`loop` (its steps), `run` (its folder), `train` (all of it), `distribute`, `checkpoint`, `evaluate`.
"""
