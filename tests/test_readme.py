"""What the README shows is what its commands do."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from moesim.cli.app import app
from moesim.scenario import load_scenario

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_quickstart_prints_what_the_readme_shows(tmp_path):
    shown = re.search(r"<!-- quickstart output.*?```text\n(.*?)```", README, re.DOTALL)
    command = [sys.executable, "-m", "moesim", "run", str(ROOT / "scenarios/quickstart.yaml")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == shown[1]
    for name in ("result.json", "report.html", "timeline.json"):
        assert (tmp_path / "moesim-out/quickstart" / name).stat().st_size > 0


def test_the_readmes_scenario_is_sound():
    text = re.search(r"```yaml\n(.*?)```", README, re.DOTALL)[1]
    assert load_scenario(yaml.safe_load(text)).scenario.model == "mixtral-8x7b"


def test_every_command_of_the_table_exists():
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for group in app.registered_groups:
        known |= {f"{group.name} {c.name or c.callback.__name__}" for c in group.typer_instance.registered_commands}
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE):
        for command in re.findall(r"`moesim ([a-z ]+[a-z])", row):
            assert command.strip() in known, command
