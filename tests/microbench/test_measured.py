"""Shipped measurements: never edited, fitted and validated to the byte, and nobody's name in them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import yaml

from moesim.hardware import available, load_machine
from moesim.microbench.card import card_text
from moesim.microbench.schema import read_result
from moesim.microbench.suite import bench_named
from moesim.microbench.validation import validate_card
from moesim.microbench.validation_report import markdown, validation_json

ROOT = Path(__file__).parents[2]
MEASURED = ROOT / "moesim/microbench/measured"
CARDS = ROOT / "moesim/hardware/cards/machine"
MANIFEST = yaml.safe_load((MEASURED / "manifest.yaml").read_text())["results"]
LATEST = [entry for entry in MANIFEST if "superseded_by" not in entry]
#: Folders of a user's, addresses, and hexadecimal serials as of drives and boards.
PRIVATE = re.compile(
    r"/(?:home|root|Users|work|tmp|mnt)/|\b\d{1,3}(?:\.\d{1,3}){3}\b|(?:[0-9a-f]{2}:){5}[0-9a-f]{2}|GPU-[0-9a-f]{8}"
)


def test_the_manifest_lists_what_is_there():
    assert sorted(entry["file"] for entry in MANIFEST) == sorted(path.name for path in MEASURED.glob("*.json"))
    assert sorted(entry["card"] for entry in LATEST) == available()["machine"]
    for entry in MANIFEST:
        assert entry.get("superseded_by") in (None, *(other["file"] for other in MANIFEST))


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_a_result_is_as_it_was_measured(entry):
    path = MEASURED / entry["file"]
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert sha256 == entry["sha256"]
    result = read_result(path)
    assert entry["file"] == f"{entry['card']}-{result.run.started_utc[:10]}-{sha256[:8]}.json"
    assert result.to_json().encode() == path.read_bytes()
    assert result.source.commit is not None
    assert "dirty" not in result.source.commit
    for row in result.rows:
        assert row.split == bench_named(row.bench).split(row.case)


@pytest.mark.parametrize("entry", MANIFEST, ids=lambda entry: entry["file"])
def test_a_result_names_nobody(entry):
    text = (MEASURED / entry["file"]).read_text()
    content = json.loads(text)
    assert not PRIVATE.search(text.replace(content["machine"]["kernel"], "")), PRIVATE.search(text)
    assert set(content["machine"]) == {
        *("virtualised", "cpu_model", "cpu_threads", "cpu_flags", "cache_bytes", "memory_bytes", "numa_nodes"),
        *("kernel", "huge_pages", "storage", "gpus", "clocks"),
    }


@pytest.mark.parametrize("entry", LATEST, ids=lambda entry: entry["card"])
def test_its_card_is_what_the_fit_gives(entry):
    card = CARDS / f"{entry['card']}.yaml"
    assert card.read_text() == card_text(MEASURED / entry["file"], entry["card"])
    spec = load_machine(entry["card"])
    assert spec.origin.result_sha256 == entry["sha256"]
    result = read_result(MEASURED / entry["file"])
    if not result.machine.gpus:  # nothing may look measured that was not
        assert (spec.gpu, spec.link) == (None, None)
        assert not [fit for fit in spec.fits if bench_named(fit.bench).program == "cuda"]


@pytest.mark.parametrize("entry", LATEST, ids=lambda entry: entry["card"])
def test_its_validation_is_what_the_reports_say(entry):
    found = validate_card(load_machine(entry["card"]), MEASURED / entry["file"])
    folder = ROOT / "reports/validation" / entry["card"]
    assert (folder / "validation.md").read_text() == markdown(found)
    assert (folder / "validation.json").read_text() == validation_json(found)
    assert found.fitted_from_it


def test_the_readme_says_what_the_report_says():
    saved = json.loads((ROOT / "reports/validation/epyc-vm-2cpu/validation.json").read_text())
    lines = {line["name"]: line["errors"] for line in saved["classes"] if line["side"] == "holdout"}
    readme = " ".join((ROOT / "README.md").read_text().split())
    for number in (lines["expert time"]["median"], lines["copies of 1 MB and more"]["median"]):
        assert f"{number} %" in readme
