"""Turns a training run into a verified model bundle: `python -m export --help`.

`convert` (Keras -> ONNX graph), `parity` (both give the same answers, or no bundle), `variants` (the same in fewer
bits, where the figures of `gate` allow it), `publish` (the bundle).
"""
