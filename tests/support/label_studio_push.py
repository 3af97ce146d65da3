"""Predictions, and pushing them to the double of Label Studio."""

from pathlib import Path
from typing import Any

from prelabel.adapters.label_studio.interface import parse_interface
from prelabel.adapters.label_studio.project import open_project
from prelabel.adapters.label_studio.push import PushSummary, push
from prelabel.adapters.label_studio.session import Session
from prelabel.adapters.label_studio.token import Token
from prelabel.adapters.rows import Conversion, Predictions, Selection
from prelabel.bulk import BulkConfig, run_bulk
from support.label_studio import LEGACY_TOKEN, LabelStudioDouble
from support.samples import ListModel, ListPredictor, ListSource

COUNT = 23
BROKEN = frozenset({4})


def predict(directory: Path, count: int = COUNT, model_id: str = "model-1", broken: frozenset[int] = BROKEN) -> Path:
    predictor = ListPredictor(ListModel(model_id))
    run_bulk(BulkConfig(directory, shard_size=10), ListSource(count, broken), "pile", predictor, progress="none")
    return directory


def session(studio: LabelStudioDouble, token: str = LEGACY_TOKEN, **options: Any) -> Session:
    return Session(studio.url, Token(token), **{"sleep": lambda _: None, **options})


def do_push(
    studio: LabelStudioDouble,
    predictions: Path,
    chunk: int = 5,
    lanes: tuple[str, ...] = (),
    error_rows: bool = True,
    **options: Any,
) -> PushSummary:
    project = open_project(session(studio, **options), 7)
    conversion = Conversion(Predictions(predictions), Selection(lanes), image_url_prefix="/data/local-files/?d=pile/")
    interface = parse_interface(project.label_config)
    return push(project, interface, conversion, error_rows=error_rows, chunk=chunk, progress_mode="none")
