"""The local tenant's command, local_tenant.py."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import (
    local_tenant_command,
    posix,
    run_on_terminal,
    shipped_settings,
    take_terminal,
    users_of,
)
from local_tenant import main
from tenant.directory import PLACEHOLDERS
from tenant.scenarios import SCENARIOS
from tenant_client import OWN, run_command

# The command line


def test_sample_lists_the_users_of_the_tenant_in_the_parameters_file(parameters):
    users = users_of(run_command("--parameters", parameters(**OWN), "--users", "2"))
    names = [user["userPrincipalName"] for user in users]
    assert names == ["jane@contoso.example", "user1@contoso.example"]


WRONG_ARGUMENTS = {  # The arguments, and the exit status.
    "unknown scenario": (["--scenario", "nonsense"], 2),
    "unusable certificate": (["--certificate", __file__], 2),
    "missing file": (["--parameters", "missing.json"], 2),
    "missing file for a command": (["--parameters", "missing.json", "curl"], 2),
    "missing command": (["--", "no_such_command"], 127),
}


@pytest.mark.parametrize("arguments, status", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_wrong_argument_is_named(arguments, status):
    result = run_command(*arguments)
    assert (result.status, result.stdout) == (status, "")
    assert arguments[1] in result.stderr and "Traceback" not in result.stderr


def test_list_shows_every_scenario_and_every_code_without_docstrings_too():
    status, stdout, stderr = run_command("--list", env=dict(os.environ, PYTHONOPTIMIZE="2"))
    assert (status, stderr) == (0, "")
    *lines, codes = stdout.splitlines()
    listed = [line.split()[0] for line in lines]
    listed += ["AADSTS" + code for code in codes.rpartition(": ")[2].split()]
    assert sorted(listed) == sorted(SCENARIOS)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_list_reports_a_full_disk_in_one_line():
    with open("/dev/full", "wb") as full:
        result = run_command("--list", stdout=full)
    assert (result.status, result.stderr.count("\n")) == (1, 1)


def test_command_gets_its_arguments_unchanged_and_decides_the_exit_status():
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    arguments = ["--list", "--", "--users", "-5"]
    result = run_command("--", sys.executable, "-c", code, *arguments)
    assert result == (7, "{}\n".format(arguments), "")


def test_missing_trustme_is_reported_in_one_line(tmp_path):
    code = "raise ModuleNotFoundError(\"No module named 'trustme'\", name='trustme')"
    (tmp_path / "trustme.py").write_text(code)
    result = run_command(env=dict(os.environ, PYTHONPATH=str(tmp_path)))
    assert (result.status, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert "pip install" in result.stderr and "trustme" in result.stderr


# The user's parameters file


def test_placeholders_match_the_shipped_parameters():
    shipped = shipped_settings()
    assert {key: shipped[key] for key in PLACEHOLDERS} == PLACEHOLDERS


SETTINGS = {  # Changes, a scenario, the exit status, and a word in stderr.
    "any password": ({"password": "only Entra knows it"}, "many-users", 0, ""),
    "any AD FS password": ({"password": "only the AD FS knows it"}, "federated", 0, ""),
    "placeholder": ({"password": "your_password"}, "federated", 1, "Could not sign in"),
    "space": ({"password": "trailing space "}, "many-users", 1, "AADSTS50126"),
    "number": ({"password": 12345}, "many-users", 2, '"password"'),
    "host": ({"authority": "https://[x"}, "many-users", 1, "Could not sign in"),
}


@pytest.mark.parametrize("changes, scenario, status, word", SETTINGS.values(), ids=SETTINGS)
def test_own_settings_work_with_any_password(parameters, changes, scenario, status, word):
    path = parameters(**dict(OWN, **changes))
    result = run_command("--parameters", path, "--scenario", scenario)
    assert (result.status, result.stdout == "") == (status, status != 0)
    assert word in result.stderr and "Traceback" not in result.stderr


def test_sample_gets_a_made_up_password_and_another_token_cache(parameters, monkeypatch):
    copies = []

    def run(command, env, cwd, **options):
        copies.append(json.loads(Path(cwd, command[-1]).read_text()))
        return 0

    monkeypatch.setattr("local_tenant.run", run)
    path = parameters(**dict(OWN, token_cache="cache.json"))
    # In this scenario, the sample runs twice. The second time, it has no password.
    arguments = ["--parameters", path, "--scenario", "sign-in-ended"]
    monkeypatch.setattr("sys.argv", ["local_tenant.py", *arguments])
    assert main() == 0
    expected = dict(OWN, token_cache="temporary_token_cache.json")
    assert copies == [dict(expected, password=word) for word in ("made-up password", None)]


# Signals and terminals


PARENT = ["sh", "-c", "sleep 50 & echo ready; wait"]
HANDLER = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *args: sys.exit(5))
print("ready", flush=True)
time.sleep(50)
"""
SIGNALS = {  # The command, and the exit status.
    "SIGTERM": (PARENT, 128 + 15),
    "SIGHUP": (PARENT, 128 + 1),
    "SIGINT": ([sys.executable, "-c", HANDLER], 5),
}


@posix
@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "none"])
@pytest.mark.parametrize("name", SIGNALS)
def test_signal_reaches_the_command_and_what_it_has_started(name, terminal):
    stdin, pipe = subprocess.DEVNULL, subprocess.PIPE
    if terminal:
        _, stdin = pytest.importorskip("pty").openpty()

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup, the tests ignore it.
        take_terminal() if terminal else os.setsid()

    command, status = SIGNALS[name]
    command = local_tenant_command(*command)
    process = subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, preexec_fn=prepare)
    assert process.stdout.readline() == b"ready\n"
    # Like Ctrl+C on a terminal, SIGINT goes to the group.
    send = os.killpg if name == "SIGINT" else os.kill
    send(process.pid, getattr(signal, name))
    # The pipe reaches its end only when the command and its child have ended too.
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == status


@posix
def test_terminal_says_that_any_password_is_right(parameters):
    command = local_tenant_command("--parameters", parameters(**dict(OWN, password=None)))
    status, screen = run_on_terminal(command, prompt="Password for", keys=b"anything\n")
    assert (status, "Users from graph:" in screen) == (0, True)
    note = screen.partition("Password for")[0]
    assert "any password" in note and "MFA" in note
