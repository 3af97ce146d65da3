"""What small pictures have in common, without a trained network: pooled patch features.

A. Coates, H. Lee and A. Ng, "An Analysis of Single-Layer Networks in Unsupervised Feature Learning", 2011: patches of
6 x 6 pixels, normalised and whitened; k-means on a sample of them; a patch is described by how much nearer than the
mean it is to each of the centres ("triangle" activation), and a picture by the sums over its four quadrants. All of it
is learnt from the pile itself. For k-means among the pictures the main components of the sums are kept.
"""

import math

import numpy as np
from numpy.typing import NDArray

from prelabel.images import Pixels
from prelabel.selection.clusters import Features, kmeans, squared_distances

PATCH_PX = 6
CENTRES = 100
"""Four quadrants make 400 numbers of them; the paper's accuracy grows slowly beyond."""
SAMPLE_IMAGES, SAMPLE_PATCHES = 1000, 20_000
"""What the centres are learnt from."""
CONTRAST = 0.01
"""Added to a patch's variance (pixels 0..1): in flat patches only noise would be left."""
WHITENING = 0.1
"""Added to the variance along each direction of normalised patches, as in the paper."""
COMPONENTS = 64
_CHUNK_IMAGES = 128
"""Pictures whose patches are in memory at a time: about 30 MB."""


def embed(pixels: Pixels, generator: np.random.Generator) -> Features:
    """Returns the features of pictures, float32 [n, 64]; nearness means that they look alike.

    Args:
        pixels: uint8 [n, 16, 16, 3], 0..255.
        generator: Decides which patches are learnt from.
    """
    some = _patches(pixels[generator.permutation(len(pixels))[:SAMPLE_IMAGES]])
    some = generator.permutation(some.reshape(-1, some.shape[-1]))[:SAMPLE_PATCHES]
    mean = some.mean(axis=0)
    variances, directions = np.linalg.eigh(np.cov(some - mean, rowvar=False))
    whiten = ((directions / np.sqrt(np.maximum(variances, 0.0) + WHITENING)) @ directions.T).astype(np.float32)
    some = (some - mean) @ whiten
    clusters = kmeans(some, CENTRES, generator)
    centres = np.stack([some[clusters == k].mean(axis=0) for k in np.unique(clusters)])
    described = np.empty((len(pixels), 4 * len(centres)), np.float32)
    for start in range(0, len(pixels), _CHUNK_IMAGES):
        chunk = slice(start, start + _CHUNK_IMAGES)
        described[chunk] = _described(_patches(pixels[chunk]), mean, whiten, centres)
    return _main_components(described)


def _patches(pixels: Pixels) -> Features:
    """Returns all patches of n pictures, each with mean 0 and variance about 1: float32 [n, P, 108]."""
    size = (PATCH_PX, PATCH_PX)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, size, axis=(1, 2))
    patches = windows.reshape(len(pixels), windows.shape[1] * windows.shape[2], -1).astype(np.float32) / 255.0
    patches -= patches.mean(axis=2, keepdims=True)
    normal: Features = patches / np.sqrt(patches.var(axis=2, keepdims=True) + CONTRAST)
    return normal


def _described(patches: Features, mean: Features, whiten: Features, centres: Features) -> Features:
    """Returns the pooled activations of b pictures' patches float32 [b, P, 108]: float32 [b, 4 k]."""
    count, places, _ = patches.shape
    side = math.isqrt(places)
    half = side // 2
    white = ((patches - mean) @ whiten).reshape(count * places, -1).astype(np.float32, copy=False)
    distances = np.sqrt(squared_distances(white, centres))
    nearer = np.maximum(distances.mean(axis=1, keepdims=True) - distances, 0.0).reshape(count, side, side, -1)
    rows = (nearer[:, :half].sum(axis=1), nearer[:, half:].sum(axis=1))
    return np.concatenate([part.sum(axis=1) for row in rows for part in (row[:, :half], row[:, half:])], axis=1)


def _main_components(described: Features) -> Features:
    """Returns float32 [n, 64], the rows in the directions in which they differ most; changes `described`."""
    described -= described.mean(axis=0)
    _, directions = np.linalg.eigh(described.T @ described)
    main: NDArray[np.float32] = directions[:, ::-1][:, :COMPONENTS]
    return described @ main
