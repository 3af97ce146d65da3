"""A real Label Studio, headless, and prelabel at work in it: `make test-label-studio`."""
