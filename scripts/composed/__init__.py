"""Image data sets composed from what the environment already holds: matplotlib's fonts, drawn shapes, and MNIST."""
