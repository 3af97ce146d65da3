"""What CVAT's auto-annotation asks: the tag of one image, from stored predictions, else from a server or a bundle.

The files of `prelabel convert --to cvat-function` make a `CvatTags`; `cvat-cli` or `cvat_sdk.auto_annotation` calls it.
"""

import io
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps

from prelabel.adapters.pictures import image_name
from prelabel.adapters.rows import Conversion, Predictions, Selection
from prelabel.errors import InputError, ModelNotFoundError
from prelabel.predictions import Prediction

if TYPE_CHECKING:
    from prelabel.client import PrelabelClient

logger = logging.getLogger(__name__)

Answer = tuple[str | None, float]
"""Label and confidence; no label: no tag."""
NO_TAG: Answer = (None, 0.0)
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})


class CvatTags:
    """A detection function of `cvat_sdk.auto_annotation`; its labels are the model's classes, as tags."""

    def __init__(
        self,
        predictions: str,
        lanes: tuple[str, ...] = (),
        min_confidence: float | None = None,
        server: str = "",
        model: str = "",
    ) -> None:
        """Reads the labels of all predictions: about 550 bytes for each image.

        Args:
            predictions: Output of `prelabel run` or `prelabel audit apply`.
            lanes: Images of other lanes get no tag; none: of all lanes.
            min_confidence: Images below it get no tag.
            server: HOST:PORT that is asked about images that the predictions do not hold.
            model: Bundle that is asked instead.

        Raises:
            InputError: The predictions cannot be used, cvat_sdk is missing, both `server` and `model` are given, or
                what they name has other classes than the predictions.
        """
        try:
            import cvat_sdk.auto_annotation as cvataa
        except ImportError:
            raise InputError("CVAT functions need cvat_sdk: pip install cvat-sdk") from None
        if server and model:
            raise InputError("give either server or model")
        self._cvataa = cvataa
        conversion = Conversion(Predictions(Path(predictions)), Selection(lanes, min_confidence))
        self._index = conversion.class_index
        self._min_confidence = min_confidence or 0.0
        self._answers: dict[str, Answer] = {}
        self._ids_of: dict[str, str | None] = {}
        for row in conversion.predictions.rows(probabilities=False):
            wanted = row.label is not None and conversion.selection.wants(row)
            self._answers[row.id] = (row.label, row.confidence or 0.0) if wanted else NO_TAG
            last = image_name(row.id).rsplit("/", 1)[-1]
            # Which of several images of one name is meant nobody knows.
            self._ids_of[last] = None if last in self._ids_of else row.id
        self._ask = _asker(server, model, conversion.classes)
        labels = [cvataa.label_spec(name, k, type="tag") for name, k in self._index.items()]
        self.spec = cvataa.DetectionFunctionSpec(labels=labels)
        """What CVAT matches with the labels of its task, by name."""

    def detect(self, context: Any, image: Image.Image) -> list[Any]:
        """Returns one tag, or none where there is no answer, or none of the wanted confidence or lane.

        Args:
            context: `frame_name` and `conf_threshold` of the frame.
            image: Looked at only if the predictions do not hold the frame.
        """
        label, confidence = self._answer(context.frame_name, image)
        if label is None or confidence < (context.conf_threshold or 0.0):
            return []
        return [self._cvataa.tag(self._index[label])]

    def _answer(self, frame_name: str, image: Image.Image) -> Answer:
        identity = self._find(frame_name)
        if identity is not None:
            return self._answers[identity]
        if self._ask is None:
            logger.warning("%r is not in the predictions, or several images have that name: no tag", frame_name)
            return NO_TAG
        prediction = self._ask(_png(image))
        if prediction.label is None:
            logger.warning("%r: %s", frame_name, prediction.error)
            return NO_TAG
        return (prediction.label, prediction.confidence) if prediction.confidence >= self._min_confidence else NO_TAG

    def _find(self, frame_name: str) -> str | None:
        """Returns the id of the image of a frame, if one of their two paths ends with the other."""
        parts = frame_name.split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            for identity in (name, name.removesuffix(".png")):
                if identity in self._answers:
                    return identity
        longer = self._ids_of.get(parts[-1])
        return longer if longer is not None and image_name(longer).endswith(f"/{frame_name}") else None


def _asker(server: str, model: str, classes: tuple[str, ...]) -> Callable[[bytes], Prediction] | None:
    """Returns a function from an image file to its prediction, None where nobody is named."""
    if server:
        return ServerAnswers(server, classes)
    if model:
        from prelabel.embedded import load_predictor
        from prelabel.images import decode_image

        engine = load_predictor(Path(model), "auto", 1).engine
        _check(model, engine.bundle.classes, classes)
        decode = partial(decode_image, spec=engine.bundle.input)
        return lambda content: next(engine.predict(decode(content)[None]).rows(classes))
    return None


class ServerAnswers:
    """From an image file to its prediction, by a server whose model has the wanted classes in their order."""

    def __init__(self, address: str, classes: tuple[str, ...]) -> None:
        self._address, self._classes = address, classes
        self._client = self._of_latest()

    def __call__(self, content: bytes) -> Prediction:
        """Returns the prediction of an image file.

        Raises:
            InputError: The server has another model now, with other classes.
        """
        try:
            answer = self._client.predict([content])
        except ModelNotFoundError:
            self._client.close()
            self._client = self._of_latest()
            answer = self._client.predict([content])
        return next(answer.rows(self._classes))

    def _of_latest(self) -> "PrelabelClient":
        from prelabel.client import PrelabelClient

        with PrelabelClient(self._address) as asking:
            model = asking.model()
        _check(self._address, model.classes, self._classes)
        # By its id: a version that is loaded later may have other classes, or these in another order.
        return PrelabelClient(self._address, model_version=model.model_id)


def _check(name: str, found: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if found != wanted:
        raise InputError(f"{name} has the classes {', '.join(found)}, but the predictions have {', '.join(wanted)}")


def _png(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    if upright.mode not in _PNG_MODES:
        upright = upright.convert("RGB")
    file = io.BytesIO()
    upright.save(file, "PNG")
    return file.getvalue()
