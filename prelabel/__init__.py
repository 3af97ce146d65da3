"""prelabel: a few labelled images and a large unlabelled pile in, pre-labels out.

The wheel holds the contract (`bundle`, `predictions`, `errors`), the inference `engine`, the gRPC `client`, the bulk
job (`bulk`) and the command line (`prelabel`). It never imports TensorFlow; see ARCHITECTURE.md for the whole line.
"""

__version__ = "0.1.0"
