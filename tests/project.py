"""Where the project's files are."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "username_password_sample.py"
PARAMETERS = ROOT / "parameters.json"
