"""A project's labelling interface: which choice is asked about which image, and under which names.

https://labelstud.io/tags/choices, https://labelstud.io/tags/image
"""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass

from prelabel.errors import InputError

EXAMPLE = (
    '<View><Image name="image" value="$image"/><Choices name="label" toName="image"><Choice value="cat"/>...'
    "</Choices></View>"
)
SHOWN_NAMES = 8
"""Names that an error message lists."""


@dataclass(frozen=True)
class Interface:
    """One `<Choices>` about one `<Image>`."""

    from_name: str
    """Name of the `<Choices>`."""
    to_name: str
    """Name of the `<Image>`."""
    image_key: str
    """Where the image stands in a task's data."""
    choices: tuple[str, ...]
    """What can be chosen, as it stands in results: a choice's alias where it has one."""

    def check(self, classes: Sequence[str]) -> None:
        """Raises `InputError` unless every class can be chosen; Label Studio itself takes any name without a word."""
        if missing := [name for name in classes if name not in self.choices]:
            raise InputError(
                f'the choices of <Choices name="{self.from_name}"> lack {_listed(missing)} of the model\'s classes '
                f"(they are {_listed(self.choices)}): add them in the project's settings under Labeling Interface, or "
                "name another project"
            )


def parse_interface(config: str, choices_name: str = "") -> Interface:
    """Finds the choice about an image in a labelling interface.

    Args:
        config: The XML, `label_config` of the project.
        choices_name: The name of the wanted `<Choices>`; empty where there is one only.

    Raises:
        InputError: It is no such XML, or it has none, several, or another than the wanted `<Choices>` about an image.
    """
    if "<!doctype" in config.lower() or "<!entity" in config.lower():
        # Entities could be made to fill the memory; Label Studio has no use for them.
        raise InputError("the project's labelling interface holds a DOCTYPE or an ENTITY: remove it")
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise InputError(f"the project's labelling interface is no XML ({error}): wanted is, say, {EXAMPLE}") from None
    images = {tag.get("name", ""): tag.get("value", "") for tag in root.iter("Image")}
    found = {}
    for tag in root.iter("Choices"):
        about = [name for name in tag.get("toName", "").split(",") if name in images]
        if about and choices_name in ("", tag.get("name", "")):
            found[tag.get("name", "")] = (tag, about[0])
    if not found:
        wanted = f'<Choices name="{choices_name}">' if choices_name else "<Choices>"
        raise InputError(
            f"the project's labelling interface has no {wanted} about an <Image>: wanted is, say, {EXAMPLE}"
        )
    if len(found) > 1:
        raise InputError(
            f"the project's labelling interface has several <Choices> about an image ({_listed(list(found))}): "
            "name one with --choices"
        )
    ((from_name, (tag, to_name)),) = found.items()
    key = re.fullmatch(r"\$(\w+)", images[to_name])
    if key is None:
        raise InputError(
            f'<Image name="{to_name}"> of the labelling interface has the value {images[to_name]!r}: one field of the '
            'task, such as "$image", is wanted'
        )
    choices = tuple(str(one.get("alias") or one.get("value", "")) for one in tag.iter("Choice"))
    if not choices:
        raise InputError(f'<Choices name="{from_name}"> of the labelling interface lists no <Choice>')
    return Interface(from_name, to_name, key[1], choices)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN_NAMES])
    return shown if len(names) <= SHOWN_NAMES else f"{shown} and {len(names) - SHOWN_NAMES} more"
