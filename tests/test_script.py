"""The sample as code that people read, copy, and run with other tools."""

import ast
import json
import os
import re
import subprocess

import pytest
from helpers import SAMPLE_PYTHON, result_of, run_program
from project import ROOT, SAMPLE
from tenant.scenarios import SCENARIOS

SOURCE = SAMPLE.read_text(encoding="utf-8")
NODES = ast.parse(SOURCE).body


def test_sign_in_and_listing_functions_come_after_main():
    functions = [node.name for node in NODES if isinstance(node, ast.FunctionDef)]
    assert functions[:3] == ["main", "acquire_token", "get_users"]


def copy_from_the_sample(*names, constants=False):
    """Return the sample's imports and these functions, without any edit, as a text."""
    copied = []
    for node in NODES:
        is_import = isinstance(node, (ast.Import, ast.ImportFrom))
        is_constant = constants and isinstance(node, ast.Assign)
        if is_import or is_constant or getattr(node, "name", None) in names:
            copied.append(ast.get_source_segment(SOURCE, node))
    return "\n\n".join(copied) + "\n\n"


SIGN_IN = """
config = json.load(open(sys.argv[1]))
app = msal.PublicClientApplication(config["client_id"], authority=config["authority"])
password = config.pop("password")
assert acquire_token(app, config) is None  # There's no password.
first = acquire_token(app, dict(config, password=password))["access_token"]
assert acquire_token(app, config)["access_token"] == first  # It's saved.
assert acquire_token(app, config, force_refresh=True)["access_token"] != first
refused = acquire_token(app, dict(config, username="other@your_tenant.com", password="wrong"))
print(" ".join([refused["error"], refused["error_description"], refused["correlation_id"]]))
"""


@pytest.mark.py27
def test_acquire_token_works_when_it_is_copied_with_the_imports(tenant, parameters):
    program = copy_from_the_sample("acquire_token") + SIGN_IN
    result = run_program(program, parameters(), env=tenant.environment())
    assert (result.status, result.stderr) == (0, "")
    assert result.stdout.startswith("invalid_grant AADSTS50034: ")
    assert tenant.grants() == ["password", "refresh_token", "password"]


LISTING = """
def sign_in():
    result = msal.PublicClientApplication(
        "your_client_id", authority="https://login.microsoftonline.com/organizations"
    ).acquire_token_by_username_password(
        "your_username@your_tenant.com", "your_password", scopes=["User.ReadBasic.All"]
    )
    return result["access_token"]

document = get_users("https://graph.microsoft.com/v1.0/users", sign_in(), sign_in)
print(json.dumps([user["id"][-12:] for user in document["value"]]))
"""


@pytest.mark.py27
def test_get_users_works_when_it_is_copied_with_the_constants_and_what_it_calls(tenant):
    SCENARIOS["token-revoked"](tenant)
    names = ["get_users", "get_page", "call_with_retries", "get_json"]
    program = copy_from_the_sample(*names, constants=True) + LISTING
    result = run_program(program, env=tenant.environment())
    assert (result.status, result.stderr) == (0, "")
    assert [int(number) for number in json.loads(result.stdout)] == list(range(1, 501))
    assert tenant.grants() == ["password", "password"]  # The second one renewed the token.


@pytest.mark.parametrize("name", ["username_password_sample.py", "tests/local_tenant.py"])
def test_inline_metadata_matches_the_requirements(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    (dependencies,) = re.findall(r"^# dependencies = (.*?)^# ///$", text, re.M | re.S)
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    if name != SAMPLE.name:
        for_tests = (ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").split()
        required += [line for line in for_tests if line.startswith("trustme")]
    assert re.findall(r'"([^"]+)"', dependencies) == required


@pytest.mark.slow  # It installs packages.
@pytest.mark.timeout(300)
@pytest.mark.parametrize("tool", ["uv run", "pipx run"])
def test_sample_alone_runs_without_installing_anything_first(tool, tenant, parameters, tmp_path):
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
    env = dict(tenant.environment(), UV_OFFLINE="1")
    env.pop("VIRTUAL_ENV", None)
    printed = subprocess.check_output([*command, parameters()], cwd=str(folder), env=env)
    assert json.loads(printed) == tenant.graph.page()


@pytest.mark.skipif("LIVE_PARAMETERS" not in os.environ, reason="LIVE_PARAMETERS names no file")
def test_sample_works_against_the_real_services():
    command = [SAMPLE_PYTHON, str(SAMPLE), os.environ["LIVE_PARAMETERS"]]
    result = result_of(command)
    assert (result.status, result.stderr) == (0, "")
    assert json.loads(result.stdout)
