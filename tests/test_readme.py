"""The README says what is so: its commands, settings, transcripts, scenarios, links and budgets."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import msal
import pytest
from conftest import CALL_FAILED, posix, read_terminal, shipped_tenant
from local_tenant import PARAMETERS, ROOT, SAMPLE, load
from tenant import LocalTenant
from tenant.directory import ADFS, CLOUDS
from tenant.scenarios import SCENARIOS
from test_script import LINES, SOURCE

README = (ROOT / "README.md").read_text(encoding="utf-8")
FEATURES = {"federated", "alternate-login", "many-users", "token-expires", "throttled"}
TENANT = [sys.executable, str(ROOT / "tests" / "local_tenant.py")]


def section(title):
    """Return the text under the heading."""
    return re.search(r"^## {}\n(.*?)(?=^## |\Z)".format(title), README, re.M | re.S).group(1)


def blocks(text, language):
    """Return the code blocks of the language."""
    return re.findall(r"^```{}\n(.*?)^```".format(language), text, re.M | re.S)


def rows(text):
    """Return the cells of the table's rows, without its head and the names of its groups."""
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [row for row in cells if not row[0].startswith("**")]


def code(text):
    """Return what stands between single backticks."""
    return re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def the_code(text, start):
    """Return the one piece of code in the text that starts so."""
    (found,) = {piece for piece in code(text) if piece.startswith(start)}
    return found


TROUBLES = [(code(row[0]), code(row[-1])[0]) for row in rows(section("Troubleshooting"))]
TOKEN_CACHE = json.loads("{{{}}}".format(the_code(section("Sign in once"), '"token_cache"')))


# The way from the demo to one's own tenant.


def test_ci_runs_the_commands_of_the_readme():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    titles = re.findall(r'^readme_block "([^"]*)"', ci, re.M)
    assert titles == ["Try it", "Run the tests"]
    for title in titles:
        assert len(blocks(section(title), "sh")) == 1
    assert "python tests/local_tenant.py" in blocks(section("Try it"), "sh")[0]
    assert "python -m pytest tests" in blocks(section("Run the tests"), "sh")[0]


def test_the_workflow_runs_the_commands_of_the_readme():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    workflow = re.sub(r"^ +", "", workflow, flags=re.M)
    for title in ("Try it", "Run the tests"):
        assert re.sub(r"^ +", "", blocks(section(title), "sh")[0], flags=re.M) in workflow
    assert the_code(section("Try it"), "py -m venv") + "\n" in workflow


def without_ids(text):
    """Return the text with its GUIDs and times made alike."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<guid>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", text)


def test_the_transcripts_are_what_the_commands_print():
    pty = pytest.importorskip("pty")
    (text,) = blocks(section("Try it"), "text")
    shown = re.findall(
        r"^\$ .venv/bin/python tests/local_tenant.py (.*)\n((?:[^$].*\n)+)", text, re.M
    )
    assert [command for command, _ in shown] == ["--users 1", "--scenario wrong-password"]
    assert shown[0][0] in blocks(section("Try it"), "sh")[0]
    for (arguments, output), status in zip(shown, (0, 1)):
        master, slave = pty.openpty()
        process = subprocess.Popen([*TENANT, *arguments.split()], stdout=slave, stderr=slave)
        os.close(slave)
        assert without_ids(read_terminal(master)).startswith(without_ids(output))
        assert process.wait() == status


@posix
def test_the_steps_make_a_file_of_ones_own_rehearse_it_and_run_it(tmp_path):
    steps = section("Your own tenant")
    copy = the_code(steps, "cp parameters.json parameters.local.json && ")
    clone = tmp_path / "clone"
    shutil.copytree(ROOT, clone, ignore=shutil.ignore_patterns(".*", "__pycache__"))

    def in_clone(command, **more):
        argv = [sys.executable, *command.split()[1:]]
        return subprocess.run(argv, cwd=str(clone), capture_output=True, **more)

    subprocess.check_call(copy, shell=True, cwd=str(clone))
    path = clone / "parameters.local.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text().replace("your_", "our_").replace("organizations", "our.com"))
    done = in_clone(the_code(steps, ".venv/bin/python tests/local_tenant.py --parameters "))
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["value"][0]["mail"] == "our_username@our_tenant.com"
    sample = ".venv/bin/python username_password_sample.py "
    verbose = the_code(section("Troubleshooting"), sample)
    assert "{}-v ".format(sample) in verbose
    with LocalTenant(load(path)) as tenant:
        for command in (the_code(steps, sample), verbose):
            in_clone(command, env=tenant.environment(), check=True)


def test_the_files_that_the_readme_names_are_there():
    named = set(re.findall(r"[\w/\\]+\.(?:py|txt)\b", README))
    assert named == {
        "username_password_sample.py",
        "requirements.txt",
        "tests/requirements.txt",
        r"tests\requirements.txt",
        "tests/local_tenant.py",
        r"tests\local_tenant.py",
        "tests/benchmark.py",
    }
    for name in named:
        assert (ROOT / name.replace("\\", "/")).exists()


def test_the_variables_functions_and_methods_that_the_readme_names_are_there():
    suite = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("*.py"))
    variables = re.findall(r"`([A-Z_]+)=", section("Run the tests"))
    assert len(variables) == 2
    assert all('"{}"'.format(variable) in suite for variable in variables)
    for name in ("initiate_device_flow", "acquire_token_by_device_flow"):
        assert name in code(section("Sign in once"))
        assert hasattr(msal.PublicClientApplication, name)
    paste = re.search(r"Paste (.*) from", section("How it works")).group(1)
    assert code(paste) == re.findall(r"^def (acquire_\w+)", SOURCE, re.M)


def az_commands():
    """Return the lines of the Azure CLI."""
    return blocks(section("Your own tenant"), "sh")[0].splitlines()


def test_the_azure_cli_asks_for_the_permissions_that_step_4_names():
    ids = {  # Microsoft Graph, and two of its delegated permissions.
        "Microsoft Graph": "00000003-0000-0000-c000-000000000000",
        "User.Read": "e1fe6dd8-ba31-4d61-89e7-88639da4683d=Scope",
        "User.ReadBasic.All": "b340eb25-3456-403f-be2f-af7a0d370277=Scope",
    }
    step = re.search(r"^4\. (.*)", section("Your own tenant"), re.M).group(1)
    assert all("**{}**".format(name) in step for name in ids)
    create, principal, permission, consent = az_commands()
    assert re.findall(r"[0-9a-f]+-\S+-\S+", permission) == list(ids.values())
    for line, start in [
        (create, "app=$(az ad app create "),
        (principal, "az ad sp create --id"),
        (permission, "az ad app permission add --id"),
        (consent, "az ad app permission admin-consent --id"),
    ]:
        assert line.startswith(start)
    assert "--is-fallback-public-client true" in create


def test_each_azure_cli_command_is_understood_by_its_parser(tmp_path):
    az = shutil.which("az")
    if not az:
        pytest.skip("needs the Azure CLI")
    lines = az_commands()
    env = dict(os.environ, AZURE_CONFIG_DIR=str(tmp_path), AZURE_CORE_COLLECT_TELEMETRY="0")
    for line in lines:
        command = re.sub(r"^app=\$\((.*)\)$", r"\1", line).replace("$app", "an_id")
        done = subprocess.run(
            [az, *shlex.split(command)[1:]], env=env, capture_output=True, text=True
        )
        assert "az login" in done.stderr, (command, done.stderr)


def test_the_settings_table_has_the_settings_of_the_program():
    table = {code(row[0])[0]: row[1] for row in rows(section("Settings"))}
    required = re.search(r"REQUIRED = \((.*)\)", SOURCE).group(1)
    assert [k for k, v in table.items() if v == "required"] == re.findall(r'"(\w+)"', required)
    assert [k for k, v in table.items() if v == "optional"] == ["password", "token_cache"]
    used = set(re.findall(r'config(?:\[|\.get\()"(\w+)"', SOURCE))
    assert used == set(table) > set(json.loads(PARAMETERS.read_text(encoding="utf-8")))


def test_the_fields_that_the_readme_names_are_those_that_are_shown():
    said, rest = section("Settings").split("the rest is null or empty")
    shown = {k for k, v in shipped_tenant().graph.page()["value"][0].items() if v}
    assert set(code(said.rpartition("a user shows")[2])) == shown


def test_the_endpoints_of_the_settings_serve(run):
    settings = section("Settings")
    me = json.loads(run(endpoint=the_code(settings, "https://graph.microsoft.com/v1.0/me")).stdout)
    assert me["mail"] == "your_username@your_tenant.com"
    query = the_code(settings, "?$top=")
    fields = re.search(r"select=(.*)", query).group(1).split(",")
    top = re.search(r"With (\d+) users a page", settings).group(1)
    assert "$top={}&".format(top) in query
    users = json.loads(run(endpoint="https://graph.microsoft.com/v1.0/users" + query).stdout)
    assert set(users["value"][0]) <= set(fields)
    assert fields[:2] == ["displayName", "jobTitle"]


def test_the_other_clouds_serve(parameters):
    clouds = re.findall(r"`(https://\S+)`, `(https://\S+)`", section("How it works"))
    assert [login.rpartition("/")[0][8:] for login, _ in clouds] == list(CLOUDS)[1:]
    for authority, endpoint in clouds:
        path = parameters(authority=authority, endpoint=endpoint)
        done = subprocess.run([*TENANT, "--parameters", path], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert json.loads(done.stdout)["value"][0]["mail"] == "your_username@your_tenant.com"


# Sign in once, and jobs.


@posix
@pytest.mark.parametrize("scenario, second", [("", 0), ("sign-in-ended", 1)])
def test_in_the_shell_a_sign_in_is_kept_and_ended_as_the_readme_says(tmp_path, scenario, second):
    once = section("Sign in once")
    shell = the_code(once, ".venv/bin/python tests/local_tenant.py ")
    assert shell.endswith(" --parameters parameters.local.json bash --norc")
    assert "`--scenario sign-in-ended` before `bash`" in once
    ended, mode = the_code(once, "no kept"), re.search(r"mode (\d+)", once).group(1)
    config = dict(json.loads(PARAMETERS.read_bytes()), **TOKEN_CACHE)
    first, then = tmp_path / "parameters.local.json", tmp_path / "without.json"
    first.write_text(json.dumps(config))
    then.write_text(json.dumps({k: v for k, v in config.items() if k != "password"}))
    job = (
        'for file; do "$PYTHON" "$SAMPLE" $file </dev/null >users.json; echo $?; done; wc -l *.json'
    )
    done = subprocess.run(
        [*TENANT, "--parameters", str(first)]
        + (["--scenario", scenario] if scenario else [])
        + ["bash", "-c", job, "bash", str(first), str(then)],
        cwd=str(tmp_path),
        env=dict(os.environ, PYTHON=sys.executable, SAMPLE=str(SAMPLE)),
        capture_output=True,
        text=True,
    )
    assert done.stdout.split()[:2] == ["0", str(second)]
    assert (ended in done.stderr) == bool(second)
    assert "0{:o}".format((tmp_path / TOKEN_CACHE["token_cache"]).stat().st_mode & 0o777) == mode


@pytest.mark.parametrize(
    "status, change",
    [
        (0, {}),
        (1, {"password": "another"}),
        (2, {"scope": "User.ReadBasic.All"}),
    ],
)
def test_the_statuses_are_those_of_the_list(run, status, change):
    statuses = re.findall(r"^- (\d+) ", section("In a job"), re.M)
    assert statuses == ["0", "1", "2", "130"]  # The last one is Ctrl-C's, in test_failures.py.
    assert re.search(r"^- {} when ".format(status), section("In a job"), re.M)
    assert run(**change).status == status


def test_what_is_tried_again_is_what_the_script_tries_again():
    said = "A busy Graph ({}), a broken connection or {} seconds of silence before the answer "
    said += "begins have had {} more tries then."
    tries, statuses = re.search(r"Retry\((\d), .*status_forcelist=\[(.*?)\]", SOURCE).groups()
    silence = re.search(r"auth=.*timeout=(\d+)", SOURCE).group(1)
    said = said.format(statuses, silence, {"3": "three"}[tries])
    assert said in section("In a job")


@pytest.mark.parametrize("slip", [(" only", "\\s"), (" only", '"'), (",\n", "\n")])
def test_a_slip_in_the_json_is_told_as_the_readme_says(run, parameters, slip):
    contents = PARAMETERS.read_text(encoding="utf-8").replace(*slip)
    result = run(path=parameters(contents=contents.encode()))
    words = re.search(r"understood: (.*) mean", section("In a job")).group(1)
    assert result.status == 2
    assert len([told for told in code(words) if told in result.stderr]) == 1


@posix
def test_the_cron_line_keeps_the_old_list_when_a_run_fails(tmp_path):
    (command,) = blocks(section("In a job"), "sh")
    line = subprocess.check_output(["bash", "-c", command], cwd=str(tmp_path), text=True)
    assert "what follows `15 6 * * *`, with `parameters.json` for `parameters.local.json`" in README
    job = line.replace("15 6 * * * ", "").replace("parameters.local.json", "parameters.json")
    assert job.startswith("cd '{}' && umask 077 && .venv/bin/python ".format(tmp_path))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nexec "{}" "$@"\n'.format(sys.executable))
    python.chmod(0o700)
    for path in (SAMPLE, PARAMETERS):
        shutil.copy(path, tmp_path / path.name)
    failing = the_code(section("In a job"), "--scenario ").split()[1]
    for scenario, status in (("federated", 0), (failing, 1)):
        tenant = shipped_tenant()
        SCENARIOS[scenario](tenant)
        with tenant:
            done = subprocess.run(["sh", "-c", job], env=tenant.environment(), capture_output=True)
        assert (done.returncode, done.stdout) == (status, b"")
        assert bool(done.stderr) == bool(status)
        assert (tmp_path / "users.json").stat().st_mode & 0o777 == 0o600
        assert len(json.loads((tmp_path / "users.json").read_text(encoding="utf-8"))["value"]) == 5
    assert (tmp_path / "users.new").read_bytes() == b""


@posix
@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
def test_the_jq_line_makes_a_table_with_a_header(run, tmp_path):
    (tmp_path / "users.json").write_text(run().stdout, encoding="utf-8")
    command = the_code(section("In a job"), "jq ")
    subprocess.check_call(command, shell=True, cwd=str(tmp_path))
    table = (tmp_path / "users.csv").read_text(encoding="utf-8").splitlines()
    assert table[:2] == ['"name","account"', '"Zoë Brontë","your_username@your_tenant.com"']
    assert len(table) == 6


def test_git_ignores_what_the_commands_write():
    ignored = set((ROOT / ".gitignore").read_text(encoding="utf-8").splitlines())
    written = set(re.findall(r"> (\w+\.\w+)", section("In a job")))
    assert written == {"users.new", "users.err", "users.json", "users.csv"}
    assert written | set(TOKEN_CACHE.values()) | {"parameters.*.json", ".venv/"} <= ignored


# Troubleshooting.


def test_every_failure_has_a_row_and_every_row_a_scenario():
    named = [scenario for _, scenario in TROUBLES]
    assert sorted(named) == sorted(set(SCENARIOS) - (FEATURES - {"throttled"}))


@pytest.mark.parametrize(
    "seen, scenario", [row for row in TROUBLES if row[1] not in ("throttled", "sign-in-ended")]
)
def test_what_a_row_says_is_seen_is_seen(parameters, seen, scenario):
    tenant = shipped_tenant()
    SCENARIOS[scenario](tenant)
    with tenant:
        done = subprocess.run(
            [sys.executable, str(SAMPLE), parameters()],
            env=tenant.environment(),
            capture_output=True,
        )
    assert seen
    for words in seen:
        assert words in done.stderr.decode()
    assert (done.returncode, done.stdout) == (1, b"")
    group = README.split("`{}` |\n".format(scenario))[0].rpartition("| **")[2]
    if not group.startswith("The network"):
        assert group.startswith("Graph") == (CALL_FAILED in done.stderr.decode())


@pytest.mark.slow
def test_what_looks_like_a_pause_is_one():
    (seen,) = [seen for seen, scenario in TROUBLES if scenario == "throttled"]
    done = subprocess.run([*TENANT, "--scenario", "throttled"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert seen[0] in done.stdout


# How it works.


STEPS = {
    "openid-configuration": "discovery",
    "discovery/instance": "instance",
    "userrealm": "realm",
    "MEX": "mex",
    "WS-Trust": "wstrust",
    "token": "token",
    "users": "graph",
}


def test_the_picture_shows_the_requests_that_are_made_in_their_order(tenant, run):
    def made(**changes):
        del tenant.requests[:]
        assert run(**changes).status == 0
        return [
            ("ADFS" if request.host == ADFS else request.host, request.method, step)
            for step, request in tenant.requests
        ]

    arrows = re.findall(r"script->>(\S+): (.*)", blocks(section("How it works"), "mermaid")[0])
    first, renewal, home, adfs, password, last = (
        [(host, method, STEPS[what]) for method, what in re.findall(r"(GET|POST) ([\w/-]+)", text)]
        for host, text in arrows
    )
    tenant.entra.token_life = 60  # MSAL renews a token that has less than five minutes.
    assert made(token_cache="kept.json") == first + home + password + last
    assert made(token_cache="kept.json") == first + renewal + last
    tenant.entra.token_life = 3600
    assert made(token_cache="kept.json", password=None) == first + renewal + last
    assert made(token_cache="kept.json", password=None) == first + last
    tenant.entra.realm = "Federated"
    assert made() == first + home + adfs + password + last
    assert (len(first + last), len(first + renewal + last)) == (2, 3)
    assert "make two requests, or three when the access token" in section("Sign in once")


def test_the_firewall_lets_through_what_is_connected_to(tenant, run):
    tenant.entra.realm = "Federated"
    assert run().status == 0
    hosts = re.search(r"A firewall must let through (.*) and a federated", section("How it works"))
    assert code(hosts.group(1)) == [host for host in tenant.proxy.connections if host != ADFS]


def test_the_pythons_are_those_that_are_tried():
    versions = re.search(
        r"^for version in (.*);", (ROOT / "tests" / "each_python").read_text(), re.M
    )
    oldest, first, *_, last = versions.group(1).split()
    said = "It runs on Python {} to {}, and on {} for the main path".format(first, last, oldest)
    assert said in section("How it works")


# What it looks like.


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


def test_it_is_short_and_has_no_long_paragraph():
    assert "{} lines, green tests".format(LINES) in section("Run the tests")
    assert len(README.splitlines()) <= 160
    text = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    for paragraph in text.splitlines():
        if not paragraph.startswith("|"):
            assert len(paragraph.split()) <= 80, paragraph
