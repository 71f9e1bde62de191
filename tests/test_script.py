"""The script as something to be read and pasted."""

import ast
import json
import os
import re
import subprocess

import pytest
from conftest import SAMPLE_PYTHON, shipped_tenant
from local_tenant import PARAMETERS, ROOT, SAMPLE

LINES = 210
SOURCE = SAMPLE.read_text(encoding="utf-8")
FUNCTIONS = [node for node in ast.parse(SOURCE).body if isinstance(node, ast.FunctionDef)]


def test_the_script_stays_short():
    assert len(SOURCE.splitlines()) <= LINES
    assert max(map(len, SOURCE.splitlines())) <= 100
    assert not any(isinstance(node, ast.ClassDef) for node in ast.walk(ast.parse(SOURCE)))
    main, *others = FUNCTIONS
    assert main.name == "main"
    assert max(node.end_lineno - node.lineno + 1 for node in others) <= 28


def test_every_function_stands_below_what_calls_it():
    names = [function.name for function in FUNCTIONS]
    for place, function in enumerate(FUNCTIONS):
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        assert not used & set(names[: place + 1])


@pytest.mark.parametrize(
    "name", ["main", *(function.name for function in FUNCTIONS if function.name != "main")]
)
def test_every_function_has_a_docstring_and_main_alone_ends_the_program(name):
    (function,) = [function for function in FUNCTIONS if function.name == name]
    assert ast.get_docstring(function)
    assert name == "main" or not re.search(
        r"\bexit\b|SystemExit|parser", ast.get_source_segment(SOURCE, function)
    )


@pytest.mark.py27
def test_importing_the_script_does_nothing(tenant, command):
    argv, env = command()
    code = "import runpy; runpy.run_path({!r}, run_name='sample')".format(str(SAMPLE))
    done = subprocess.run([argv[0], "-W", "ignore", "-c", code], env=env, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert tenant.requests == []


@pytest.mark.py27
def test_the_two_token_functions_work_when_they_are_pasted(tenant, parameters, tmp_path):
    paste = [node for node in FUNCTIONS if node.name.startswith("acquire_token_")]
    assert [FUNCTIONS.index(node) for node in paste] == [
        FUNCTIONS.index(paste[0]),
        FUNCTIONS.index(paste[0]) + 1,
    ]
    imports = [n for n in ast.parse(SOURCE).body if isinstance(n, (ast.Import, ast.ImportFrom))]
    pieces = [ast.get_source_segment(SOURCE, node) for node in imports + paste]
    job = """
config = json.load(open(sys.argv[1]))
app = msal.PublicClientApplication(config["client_id"], authority=config["authority"])
assert acquire_token_from_cache(app, config) is None
assert "access_token" in acquire_token_by_password(app, config)
del config["password"]
assert "access_token" in acquire_token_from_cache(app, config)
"""
    (tmp_path / "job.py").write_text("\n".join(pieces) + job, encoding="utf-8")
    command = [SAMPLE_PYTHON, "-W", "ignore", str(tmp_path / "job.py"), parameters()]
    done = subprocess.run(command, env=tenant.environment(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert tenant.grants() == ["password"]


def test_the_docstring_names_every_setting_and_which_are_required():
    docstring = ast.get_docstring(ast.parse(SOURCE))
    said = dict(re.findall(r"^  (\w+) +(required|optional) ", docstring, re.M))
    required = [key for key, word in said.items() if word == "required"]
    assert re.search(r"^REQUIRED = \((.*)\)$", SOURCE, re.M).group(1) == ", ".join(
        '"{}"'.format(key) for key in required
    )
    assert set(said) - set(required) == {"password", "token_cache"}


def test_the_shipped_file_has_the_six_settings_of_the_seed():
    assert json.loads(PARAMETERS.read_text(encoding="utf-8")) == {
        "authority": "https://login.microsoftonline.com/organizations",
        "client_id": "your_client_id",
        "username": "your_username@your_tenant.com",
        "password": "This is a sample only. You better NOT persist your password.",
        "scope": ["User.ReadBasic.All"],
        "endpoint": "https://graph.microsoft.com/v1.0/users",
    }


@pytest.mark.parametrize("script", ["username_password_sample.py", "tests/local_tenant.py"])
def test_the_inline_metadata_names_the_packages_of_requirements_txt(script):
    text = (ROOT / script).read_text(encoding="utf-8")
    (block,) = re.findall(r"^# /// script\n(.*?)^# ///$", text, re.M | re.S)
    dependencies = re.findall(r'"([^"]+)"', block.split("dependencies = ")[1])
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    if script.startswith("tests/"):
        for_tests = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").split()
        required += [line for line in for_tests if line.startswith("trustme")]
    assert dependencies == required


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["uv run", "pipx run"])
def test_the_script_alone_runs_with_nothing_installed(tool, parameters, tmp_path):
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / SAMPLE.name).write_bytes(SAMPLE.read_bytes())
    command = [*tool.split(), SAMPLE.name]
    clean = {k: v for k, v in os.environ.items() if k not in ("VIRTUAL_ENV", "PYTHONPATH")}
    try:
        # The packages come from the index, so this first call is made without the tenant's proxy.
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
def test_the_real_services_answer():
    command = [SAMPLE_PYTHON, str(SAMPLE), os.environ["LIVE_PARAMETERS"]]
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)
