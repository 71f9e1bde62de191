"""The README as data, and a clone like the one that a reader has.

A code block has a name after its language: ```sh linux-job. Tests find blocks by these names and
tables by their header, so the headings and the prose can change.
"""

import json
import os
import re
import shutil
import sys
import textwrap
import venv

from helpers import result_of
from project import ROOT, SAMPLE
from tenant import LocalTenant
from tenant.scenarios import SCENARIOS

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^( *)```(\w+)(?: ([\w.-]+))?\n(.*?)^ *```$", re.M | re.S)
PROSE = BLOCK.sub("", TEXT)


def blocks(language):
    """Return the code blocks in this language: their names, or "line N", and their texts."""
    found = {}
    for match in BLOCK.finditer(TEXT):
        if match.group(2) == language:
            name = match.group(3) or "line {}".format(TEXT.count("\n", 0, match.start()) + 1)
            found[name] = textwrap.dedent(match.group(4))
    return found


def block(name, language="sh"):
    """Return the code block with this name. Raises KeyError if there's none."""
    return blocks(language)[name]


def settings(name):
    """Return the settings in a JSON block as a dict."""
    return json.loads("{" + block(name, "json").rstrip().rstrip(",") + "}")


def code(text):
    """Return everything between single backticks."""
    return re.findall(r"`([^`]+)`", text)


def rows(header):
    """Return the cells in each row of the tables whose first column has this header."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PROSE, re.M):
        first, _, *lines = [line[1:-1].split(" | ") for line in table.splitlines()]
        if first[0].strip() == header:
            found += [[cell.strip() for cell in line] for line in lines]
    return found


class Clone:
    """A copy of the project with this Python as its virtual environment.

    Its sample doesn't wait between retries.
    """

    def __init__(self, folder):
        self.folder = folder
        ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.local.json")
        shutil.copytree(ROOT, folder, ignore=ignored)
        self._make_environment()
        script = folder / SAMPLE.name
        text = script.read_text(encoding="utf-8")
        text, count = re.subn(
            r"^(RETRY_WAITS = )(\(.*\))", r"\1[0 * wait for wait in \2]", text, flags=re.M
        )
        assert count == 1
        script.write_text(text, encoding="utf-8")
        self.parameters = folder / "parameters.local.json"

    def _make_environment(self):
        """Create a virtual environment that has this Python's packages."""
        environment = self.folder / ".venv"
        if os.name == "nt":
            venv.create(str(environment))
            packages = "\n".join(path for path in sys.path if path.endswith("site-packages"))
            (environment / "Lib" / "site-packages" / "packages.pth").write_text(packages)
            return
        (environment / "bin").mkdir(parents=True)
        python = environment / "bin" / "python"
        python.write_text('#!/bin/sh\nexec "{}" "$@"\n'.format(sys.executable))
        python.chmod(0o755)
        activate = 'PATH="{}:$PATH"\n'.format(environment / "bin")
        (environment / "bin" / "activate").write_text(activate)

    def command(self, text):
        """Return the command that runs the lines of a shell block in an open environment.

        Lines that install packages are left out. .ci/run runs them.
        """
        lines = [line for line in text.splitlines() if not re.search(r" -m (venv|pip) ", line)]
        return ["bash", "-e", "-c", "\n".join([". .venv/bin/activate", *lines])]

    def options(self, tenant=None, **env):
        """Return the options for subprocess: the folder, and the environment."""
        environment = tenant.environment() if tenant else dict(os.environ)
        environment.update(env, PYTHONDONTWRITEBYTECODE="1")
        return {"cwd": str(self.folder), "env": environment}

    def run(self, text, tenant=None, **env):
        """Run the commands in a shell block, and return the Result."""
        return result_of(self.command(text), **self.options(tenant, **env))

    def configure(self, **changes):
        """Fill in the settings with a tenant, an app, and a user that aren't the placeholders.

        None removes a setting.
        """
        text = (self.folder / "parameters.json").read_text(encoding="utf-8")
        for old, new in [("your_", "our_"), ("organizations", "our_tenant.com")]:
            assert old in text
            text = text.replace(old, new)
        config = dict(json.loads(text), **changes)
        config = {key: value for key, value in config.items() if value is not None}
        self.parameters.write_text(json.dumps(config, indent=2), encoding="utf-8")

    def save(self, *names):
        """Save the README's programs."""
        for name in names:
            (self.folder / name).write_text(block(name, "python"), encoding="utf-8")

    def tenant(self, scenario=None):
        """Return the local tenant of parameters.local.json."""
        config = json.loads(self.parameters.read_text(encoding="utf-8"))
        tenant = LocalTenant(dict(config, password=config.get("password", "typed password")))
        if scenario:
            SCENARIOS[scenario](tenant)
        return tenant

    def users(self, name="users.json"):
        """Return the users in a file."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))["value"]


def changed(text, old, new):
    """Return the text with one change. Raises AssertionError unless "old" occurs exactly once."""
    assert text.count(old) == 1, (text.count(old), old)
    return text.replace(old, new)
