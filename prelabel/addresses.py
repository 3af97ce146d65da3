"""Addresses of images: what a tool opens to show one."""

import urllib.parse

WEB = ("http://", "https://", "/")


def image_address(prefix: str, identity: str) -> str:
    """Returns the address of an image: a prefix with its id behind it.

    In web addresses, which start with `http` or `/`, the id's special characters are escaped; keys in storages, such as
    s3://bucket/a b.png, are taken as they are.
    """
    return prefix + (urllib.parse.quote(identity) if prefix.startswith(WEB) else identity)
