"""`prelabel plan`: the `sample` that is looked at, the `speed` on this machine, the `plan` and its `text`."""
