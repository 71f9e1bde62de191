"""The sample as code that people read, copy, and run with other tools."""

import ast
import json
import os
import re
import subprocess

import pytest
from helpers import SAMPLE_PYTHON, shipped_tenant
from local_tenant import ROOT, SAMPLE

SOURCE = SAMPLE.read_text(encoding="utf-8")
FUNCTIONS = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef)]


def test_main_comes_first_and_acquire_token_comes_second():
    assert [function.name for function in FUNCTIONS[:2]] == ["main", "acquire_token"]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_every_function_has_a_docstring(function):
    assert ast.get_docstring(function)


@pytest.mark.py27
def test_importing_the_sample_does_nothing(tenant):
    program = "import runpy; runpy.run_path({!r}, run_name='sample')".format(str(SAMPLE))
    done = subprocess.run(
        [SAMPLE_PYTHON, "-W", "ignore", "-c", program],
        env=tenant.environment(),
        capture_output=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tenant.requests == []


JOB = """

config = json.load(open(sys.argv[1]))
app = msal.PublicClientApplication(config["client_id"], authority=config["authority"])
first = acquire_token(app, config)
del config["password"]
second = acquire_token(app, config)
assert second["access_token"] == first["access_token"]
third = acquire_token(app, config, force_refresh=True)
assert third["access_token"] != first["access_token"]
try:
    acquire_token(app, dict(config, username="other@your_tenant.com"))
except RuntimeError as error:
    print(error)
"""


@pytest.mark.py27
def test_acquire_token_works_when_it_is_copied_with_the_imports(tenant, parameters, tmp_path):
    imports = [n for n in ast.parse(SOURCE).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    copied = [ast.get_source_segment(SOURCE, node) for node in [*imports, FUNCTIONS[1]]]
    (tmp_path / "job.py").write_text("\n".join(copied) + JOB, encoding="utf-8")
    done = subprocess.run(
        [SAMPLE_PYTHON, "-W", "ignore", str(tmp_path / "job.py"), parameters()],
        env=tenant.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert '"password"' in done.stdout
    assert tenant.grants() == ["password", "refresh_token"]


def inline_metadata(path):
    """Return the dependencies in the PEP 723 block of the file."""
    text = path.read_text(encoding="utf-8")
    (block,) = re.findall(r"^# /// script\n(.*?)^# ///$", text, re.M | re.S)
    return re.findall(r'"([^"]+)"', block.split("dependencies = ")[1])


def test_inline_metadata_of_the_sample_matches_requirements_txt():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert inline_metadata(SAMPLE) == required


def test_inline_metadata_of_the_local_tenant_matches_the_requirements():
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    for_tests = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").split()
    required += [line for line in for_tests if line.startswith("trustme")]
    assert inline_metadata(ROOT / "tests" / "local_tenant.py") == required


@pytest.mark.slow  # It installs packages.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", ["uv run", "pipx run"])
def test_sample_alone_runs_without_installing_anything_first(tool, parameters, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / SAMPLE.name).write_bytes(SAMPLE.read_bytes())
    command = [*tool.split(), SAMPLE.name]
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    try:
        # The packages come from the package index, so this call doesn't use the local tenant.
        subprocess.run([*command, "--help"], cwd=str(folder), env=clean, check=True)
    except FileNotFoundError:
        pytest.skip("needs {}".format(tool.split()[0]))
    with shipped_tenant() as tenant:
        env = dict(tenant.environment(), UV_OFFLINE="1")
        env.pop("VIRTUAL_ENV", None)
        done = subprocess.run(
            [*command, parameters()], cwd=str(folder), env=env, capture_output=True
        )
        assert json.loads(done.stdout) == tenant.graph.page()
    assert done.returncode == 0


@pytest.mark.skipif("LIVE_PARAMETERS" not in os.environ, reason="LIVE_PARAMETERS names no file")
def test_sample_works_against_the_real_services():
    command = [SAMPLE_PYTHON, str(SAMPLE), os.environ["LIVE_PARAMETERS"]]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)
