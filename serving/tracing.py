"""Decides by the standard OTEL_* variables whether calls are traced; OpenTelemetry is imported only then."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prelabel.errors import InputError

if TYPE_CHECKING:
    from serving.spans import Spans

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def tracing(environment: Mapping[str, str]) -> "Spans | None":
    """Returns the observer that sends spans to an OTLP collector, or None where nothing asks for one.

    Raises:
        InputError: Tracing is asked for in a way that this server does not know, or OpenTelemetry is not installed.
    """
    asked_by = _asked_by(environment)
    if asked_by is None:
        return None
    for name in _PROTOCOLS:
        if environment.get(name, "grpc") != "grpc":
            raise InputError(f"{name} is {environment[name]!r}: this server sends traces by grpc only (port 4317)")
    try:
        from serving.spans import to_collector
    except ModuleNotFoundError as error:
        raise InputError(
            f"{asked_by} asks for traces, but {error.name} is not installed: pip install opentelemetry-sdk "
            "opentelemetry-exporter-otlp-proto-grpc, or set OTEL_SDK_DISABLED=true"
        ) from error
    try:
        return to_collector()
    except ValueError as error:
        raise InputError(f"{asked_by} asks for traces, but the OTEL_* variables cannot be used: {error}") from error


def _asked_by(environment: Mapping[str, str]) -> str | None:
    """Returns the variable that asks for traces."""
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise InputError(f"OTEL_TRACES_EXPORTER is {exporter!r}: otlp or none wanted")
    for name in ("OTEL_TRACES_EXPORTER", *_ENDPOINTS):
        if environment.get(name):
            return name
    return None
