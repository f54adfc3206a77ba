"""What the README shows is what its commands do."""

import re
import subprocess
import sys
from pathlib import Path

import yaml
from typer.main import get_command

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


def commands(group, name=""):
    """Every command below a group, by its words."""
    for word, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {word}".strip())
        else:
            yield f"{name} {word}".strip()


def test_the_table_names_every_command_and_no_other():
    known, shown = set(commands(get_command(app))), set()
    for row in re.findall(r"^\| (`.*?) \|", README, re.MULTILINE):
        for command in re.findall(r"`moesim ([a-z][a-z -]*[a-z])", row):
            shown.add(" ".join(word for word in command.split() if not word.startswith("-")))
    assert shown - known == set()
    assert {command.split()[0] for command in known} == {command.split()[0] for command in shown}
