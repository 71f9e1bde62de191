"""The README says what is so: its commands, settings, transcripts, scenarios, links and budgets."""

import json
import os
import re
import subprocess
import sys

import pytest
from local_tenant import PARAMETERS, ROOT, SAMPLE, SCENARIOS, LocalTenant

README = (ROOT / "README.md").read_text(encoding="utf-8")
FEATURES = {"federated", "alternate-login", "many-users", "token-expires", "throttled"}


def section(title):
    """Return the text under the heading."""
    return re.search(r"^## {}\n(.*?)(?=^## |\Z)".format(title), README, re.M | re.S).group(1)


def blocks(text, language):
    """Return the code blocks of the language."""
    return re.findall(r"^```{}\n(.*?)^```".format(language), text, re.M | re.S)


def rows(text):
    """Return the cells of the table's rows, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def code(cell):
    """Return what stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


TROUBLES = [(code(row[0]), code(row[-1])[0]) for row in rows(section("Troubleshooting"))]
MARKS = {"throttled": pytest.mark.slow}  # It is what the row says: a pause.


def test_ci_runs_the_commands_of_the_readme():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    titles = re.findall(r'^readme_block "([^"]*)"', ci, re.M)
    assert titles == ["Try it", "Run the tests"]
    for title in titles:
        assert len(blocks(section(title), "sh")) == 1
    assert "python tests/local_tenant.py" in blocks(section("Try it"), "sh")[0]
    assert "python -m pytest tests" in blocks(section("Run the tests"), "sh")[0]


def test_the_settings_table_has_the_settings_of_the_program():
    script = SAMPLE.read_text(encoding="utf-8")
    table = {code(row[0])[0]: row[1] for row in rows(section("Your own tenant"))}
    used = set(re.findall(r'config(?:\[|\.get\()"(\w+)"', script))
    required = re.search(r"required = \((.*)\)", script).group(1)
    assert set(table) == used
    assert {k for k, v in table.items() if v == "required"} == set(re.findall(r'"(\w+)"', required))
    assert {k for k, v in table.items() if v == "optional"} == {"password", "token_cache"}
    assert set(json.loads(PARAMETERS.read_text(encoding="utf-8"))) < set(table)


def test_the_transcript_of_a_success(tenant, on_terminal):
    assert "?$select=displayName,mail" in section("Try it")
    assert "has exit status 0" in section("Try it")
    tenant.users = 2
    endpoint = "https://graph.microsoft.com/v1.0/users?$select=displayName,mail"
    assert on_terminal(endpoint=endpoint) == (0, blocks(section("Try it"), "text")[0])


def without_ids(text):
    """Return the text with its GUIDs and times made alike."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<guid>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", text)


def test_the_transcript_of_a_failure():
    (said,) = re.findall(r"A failure, `python (tests/local_tenant.py .*?)`", section("Try it"))
    done = subprocess.run([sys.executable, *said.split()], cwd=str(ROOT), capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert "has status 1" in section("Try it")
    assert without_ids(done.stderr.decode()) == without_ids(blocks(section("Try it"), "text")[1])


def test_every_failure_has_a_row_and_every_row_a_scenario():
    named = [scenario for _, scenario in TROUBLES]
    assert len(named) == len(set(named))
    assert set(named) == set(SCENARIOS) - (FEATURES - {"throttled"})


@pytest.mark.parametrize(
    "seen, scenario", [pytest.param(*row, marks=MARKS.get(row[1], ())) for row in TROUBLES]
)
def test_what_a_row_says_is_seen_is_seen(parameters, seen, scenario):
    tenant = LocalTenant()
    SCENARIOS[scenario](tenant)
    with tenant:
        done = subprocess.run(
            [sys.executable, str(SAMPLE), parameters()],
            env=tenant.environment(),
            capture_output=True,
        )
    assert seen
    for words in seen:
        assert words in (done.stdout + done.stderr).decode()
    assert done.returncode == (0 if scenario in FEATURES else 1)


@pytest.mark.parametrize("status", ["0 for users", "1 when", "2 when", "130 after Ctrl-C"])
def test_the_statuses_are_those_of_the_script(status):
    assert status in section("In a job")
    assert status in " ".join(SAMPLE.read_text(encoding="utf-8").split('"""')[1].split())


def test_the_cron_line_keeps_the_old_list_when_a_run_fails(tmp_path):
    (line,) = blocks(section("In a job"), "sh")
    job = line.split(" * * * ")[1].strip()
    assert job.startswith("cd /opt/users && .venv/bin/python ")
    job = job.replace("cd /opt/users", "cd '{}'".format(tmp_path))
    job = job.replace(".venv/bin/python", sys.executable)
    for path in (SAMPLE, PARAMETERS):
        name = path.name.replace("parameters.json", "parameters.local.json")
        (tmp_path / name).write_bytes(path.read_bytes())
    for scenario, status in (("federated", 0), ("wrong-password", 1)):
        tenant = LocalTenant()
        SCENARIOS[scenario](tenant)
        with tenant:
            done = subprocess.run(["sh", "-c", job], env=tenant.environment(), capture_output=True)
        assert (done.returncode, done.stdout) == (status, b"")
        assert bool(done.stderr) == bool(status)
        assert len(json.loads((tmp_path / "users.json").read_text(encoding="utf-8"))["value"]) == 5


def test_the_token_cache_of_the_readme_is_ignored_by_git():
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert '"token_cache": "token_cache.json"' in section("Sign in once")
    assert {"token_cache.json", "parameters.*.json", ".venv/"} <= set(ignored)


def test_local_links_and_anchors_resolve():
    headings = re.findall(r"^#+ (.*)", README, re.M)
    anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        elif not link.startswith("https://"):
            assert (ROOT / link).exists()


@pytest.mark.parametrize("name, budget", [("username_password_sample.py", 220), ("README.md", 159)])
def test_the_budget_of_lines(name, budget):
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    assert len(lines) <= budget
    if name.endswith(".py"):
        assert max(map(len, lines)) <= 100


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


def test_the_scenarios_are_listed():
    command = [sys.executable, str(ROOT / "tests" / "local_tenant.py"), "--list"]
    listed = subprocess.check_output(command, text=True).splitlines()
    assert [line.split()[0] for line in listed] == list(SCENARIOS)


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
    with LocalTenant() as tenant:
        env = dict(tenant.environment(), UV_OFFLINE="1")
        env.pop("VIRTUAL_ENV", None)
        done = subprocess.run(
            [*command, parameters()], cwd=str(folder), env=env, capture_output=True
        )
        assert json.loads(done.stdout) == tenant.page({})
    assert done.returncode == 0


@pytest.mark.skipif("LIVE_PARAMETERS" not in os.environ, reason="LIVE_PARAMETERS names no file")
def test_the_real_services_answer():
    path = os.environ["LIVE_PARAMETERS"]
    done = subprocess.run([sys.executable, str(SAMPLE), path], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)
