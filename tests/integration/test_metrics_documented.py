"""The metrics that exist are those of the documentation, the alerts and the dashboard."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from serving.gpu import gpu_metrics
from serving.pooled_metrics import Pool, PooledMetrics
from support.engines import EchoEngine
from support.inside import request
from support.scrape import Samples, serving, until

ROOT = Path(__file__).parents[2]


async def exposed() -> Samples:
    """What a server exposes that has answered a request."""
    async with serving(EchoEngine()) as (server, stub):
        await stub.Predict(request([1]))
        return await until(server, lambda read: "prelabel_rpcs_total" in read.labels)


def metrics_of_gpus(monkeypatch: pytest.MonkeyPatch) -> Samples:
    """What is exposed of a machine with two GPUs, of which one is lost."""

    def memory(handle: int) -> SimpleNamespace:
        if handle == 1:
            raise OSError
        return SimpleNamespace(used=3 << 30, total=8 << 30)

    nvml = SimpleNamespace(
        NVMLError=OSError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=memory,
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=25),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    registry = CollectorRegistry()
    gpus = gpu_metrics()
    assert gpus is not None
    registry.register(gpus)
    return Samples(generate_latest(registry).decode())


def supervisor_metrics() -> Samples:
    """What a supervisor exposes of itself."""
    return Samples(generate_latest(PooledMetrics(lambda: Pool(2, 1, {})).registry()).decode())


def test_gpu_memory_is_shown_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = metrics_of_gpus(monkeypatch)
    assert {name: value for name, value in samples.items() if "gpu" in name} == {
        'prelabel_gpu_memory_used_bytes{gpu="0"}': 3 << 30,
        'prelabel_gpu_memory_capacity_bytes{gpu="0"}': 8 << 30,
        'prelabel_gpu_utilization_ratio{gpu="0"}': 0.25,
    }


def test_without_nvml_there_are_no_gpu_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_metrics() is None


async def test_the_table_in_the_docs_is_what_is_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "docs/serving.md").read_text().partition("### Metrics")[2].partition("### Logs")[0]
    documented = {
        (name, kind, tuple(sorted(re.findall(r"`(\w+)`", labels))))
        for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    }
    found = set()
    for samples in (await exposed(), supervisor_metrics(), metrics_of_gpus(monkeypatch)):
        for family in samples.families:
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            found.add((name, family.type, tuple(sorted(labels))))
    assert documented == found


async def test_causes_and_outcomes_of_the_docs_are_those_exposed() -> None:
    text = (ROOT / "docs/serving.md").read_text()
    for metric in ("prelabel_rejections_total", "prelabel_images_total"):
        (row,) = re.findall(rf"^\| `{metric}` .*", text, re.MULTILINE)
        words = set(re.findall(r"`(\w+)`", row.split("|")[4]))
        assert words == {re.findall('"(.*)"', name)[0] for name in await exposed() if name.startswith(metric)}


def queries() -> list[str]:
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((ROOT / "deploy/grafana/prelabel.json").read_text())
    panels = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    variables = [one["query"]["query"] for one in dashboard["templating"]["list"] if one["type"] == "query"]
    assert alerts
    assert panels
    assert variables
    return alerts + panels + variables


async def test_alerts_and_dashboard_ask_only_for_what_is_exposed(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = metrics_of_gpus(monkeypatch).labels | supervisor_metrics().labels | (await exposed()).labels
    values = {text for name in await exposed() for text in re.findall(r'(\w+="[^"]*")', name)}
    scraped = {"job", "instance"}
    for query in queries():
        names = re.findall(r"\b((?:prelabel|process)_\w+)", query)
        assert names or "up{" in query, query
        for name in names:
            assert name in labels, query
        known = scraped.union(*(labels[name] for name in names))
        for group in re.findall(r"by \(([^)]*)\)", query):
            assert set(group.split(", ")) <= known, query
        for label, operator, value in re.findall(r'(\w+)(=~?)"([^"]*)"', query):
            assert label in known, query
            if operator == "=" and label not in scraped and label != "code":
                assert f'{label}="{value}"' in values, query


def test_the_scrape_configuration_has_the_job_and_the_rules_that_exist() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    assert [scrape["job_name"] for scrape in config["scrape_configs"]] == ["prelabel"]
    for file in config["rule_files"]:
        assert (ROOT / "deploy/prometheus" / file).exists()
