"""Duplicates in a pile: `fingerprints` of images, `pairs` that are alike, `groups` of them, and the `table` on disk."""
