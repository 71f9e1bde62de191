"""The local tenant's command, local_tenant.py."""

import json
import os
import signal
import subprocess
import sys

import pytest
from helpers import (
    expire_access_tokens,
    local_tenant_command,
    posix,
    run_on_terminal,
    sample_command,
    shipped_settings,
    take_terminal,
    users_of,
)
from project import ROOT
from tenant.directory import PLACEHOLDERS
from tenant.scenarios import SCENARIOS
from tenant_client import OWN, own_tenant, run_command, run_program, sign_in

# The command line


def test_command_without_arguments_runs_the_sample():
    users = users_of(run_command())
    assert len(users) == 5
    assert users[0]["userPrincipalName"] == shipped_settings()["username"]


def test_users_option_sets_the_number_of_users(parameters):
    users = users_of(run_command("--parameters", parameters(**OWN), "--users", "2"))
    names = [user["userPrincipalName"] for user in users]
    assert names == ["jane@contoso.example", "user1@contoso.example"]


WRONG_ARGUMENTS = {
    "negative number of users": ["--users", "-5"],
    "no number of users": ["--users", "five"],
    "unknown scenario": ["--scenario", "nonsense"],
    "unusable certificate": ["--certificate", __file__],
    "missing parameters file": ["--parameters", "missing.json", "curl"],
}


@pytest.mark.parametrize("arguments", WRONG_ARGUMENTS.values(), ids=WRONG_ARGUMENTS)
def test_wrong_argument_is_a_usage_error_that_names_it(arguments):
    status, stdout, stderr = run_command(*arguments)
    assert (status, stdout) == (2, "")
    assert stderr.startswith("usage:") and arguments[1] in stderr


@pytest.mark.parametrize("options", [[], ["-OO"]], ids=["python", "python -OO"])
def test_list_shows_every_scenario_and_every_code(options):
    python, *command = local_tenant_command("--list")
    status, stdout, stderr = run_program(python, *options, *command)
    assert (status, stderr) == (0, "")
    *lines, codes = stdout.splitlines()
    listed = [line.split()[0] for line in lines]
    listed += ["AADSTS" + code for code in codes.rpartition(": ")[2].split()]
    assert sorted(listed) == sorted(SCENARIOS)


@posix
@pytest.mark.parametrize("reader", ["none", "full disk"])
def test_list_reports_no_write_error_except_a_full_disk(reader):
    read_end, stdout = os.pipe()
    os.close(read_end)
    if reader == "full disk":
        if not os.path.exists("/dev/full"):
            pytest.skip("needs /dev/full")
        os.close(stdout)
        stdout = os.open("/dev/full", os.O_WRONLY)
    command = local_tenant_command("--list")
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(stdout)
    lines = 1 if reader == "full disk" else 0
    assert (done.returncode, done.stderr.count("\n")) == (lines, lines)


@pytest.mark.parametrize("separator", [[], ["--"]], ids=["no separator", "--"])
def test_command_gets_its_arguments_unchanged_and_decides_the_exit_status(separator):
    code = "import sys; print(sys.argv[1:]); sys.exit(7)"
    arguments = ["--list", "--", "--users", "-5"]
    result = run_command(*separator, sys.executable, "-c", code, *arguments)
    assert result == (7, "{}\n".format(arguments), "")


def test_command_that_does_not_exist_exits_with_127():
    status, stdout, stderr = run_command("no_such_command")
    assert (status, stdout, stderr.count("\n")) == (127, "", 1)
    assert "no_such_command" in stderr


def test_missing_trustme_is_reported_in_one_line(tmp_path):
    code = "raise ModuleNotFoundError(\"No module named 'trustme'\", name='trustme')"
    (tmp_path / "trustme.py").write_text(code)
    env = dict(os.environ, PYTHONPATH=str(tmp_path))
    done = subprocess.run(local_tenant_command(), env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "pip install" in done.stderr and "trustme" in done.stderr


# The user's parameters file


def test_placeholders_match_the_shipped_parameters():
    shipped = shipped_settings()
    assert {key: shipped[key] for key in PLACEHOLDERS} == PLACEHOLDERS


UNUSABLE = {  # The contents of the file, and what the message names.
    "empty": (b"", "{path}"),
    "list": (b"[]", "{path}"),
    "no settings": (b"{}", "{path}"),
    "missing": (None, "{path}"),
    "password": (dict(OWN, password=12345), '"password"'),
    "token cache": (dict(OWN, token_cache=1), '"token_cache"'),
    "authority": (dict(OWN, authority=1), '"authority"'),
    "host": (dict(OWN, authority="https://[x"), "Could not sign in"),
}


@pytest.mark.parametrize("contents, named", UNUSABLE.values(), ids=UNUSABLE)
def test_sample_reports_an_unusable_parameters_file(tmp_path, contents, named):
    path = tmp_path / "own.json"
    if isinstance(contents, dict):
        contents = json.dumps(contents).encode()
    if contents is not None:
        path.write_bytes(contents)
    status, stdout, stderr = run_command("--parameters", str(path))
    assert (status in (1, 2), stdout) == (True, "")
    assert named.format(path=path) in stderr and "Traceback" not in stderr
    assert status == 1 or path.name in stderr


@pytest.mark.parametrize(
    "password, scenario, status",
    [
        ("only Entra knows it", "many-users", 0),
        ("only the AD FS knows it", "federated", 0),
        ("your_password", "many-users", 1),
        (" leading space", "many-users", 1),
        ("trailing space ", "many-users", 1),
        ("only Entra knows it", "wrong-password", 1),
        ("only the AD FS knows it", "federated-wrong-password", 1),
    ],
)
def test_any_password_that_entra_can_take_is_right(parameters, password, scenario, status):
    path = parameters(**dict(OWN, password=password))
    result = run_command("--parameters", path, "--scenario", scenario)
    assert (result.status, "Could not sign in" in result.stderr) == (status, status == 1)


def test_port_of_the_local_tenant_does_not_reveal_the_password(parameters):
    _, url, form, _ = sign_in(password="a guess")
    code = "import requests; print(requests.post({!r}, {!r}).status_code)".format(url, form)
    command = ["--parameters", parameters(**OWN), "--", sys.executable, "-c", code]
    assert run_command(*command) == (0, "200\n", "")


SHOW_SETTINGS = """
import os, sys
with open(sys.argv[1]) as settings, open(os.environ["SHOWN"], "a") as shown:
    shown.write(settings.read() + "\\n")
"""
MADE_UP = "made-up password"


@pytest.mark.parametrize(
    "scenario, password, passwords",
    [
        ("federated", "secret", [MADE_UP]),
        ("federated", None, [None]),
        ("sign-in-ended", "secret", [MADE_UP, None]),
        ("sign-in-ended", None, [MADE_UP, None]),
    ],
)
def test_sample_gets_a_made_up_password_and_another_token_cache(
    tmp_path, parameters, scenario, password, passwords
):
    program, shown = tmp_path / "show_settings.py", tmp_path / "shown"
    program.write_text(SHOW_SETTINGS)
    code = "import local_tenant, sys; local_tenant.SAMPLE = sys.argv.pop(1); local_tenant.main()"
    path = parameters(**dict(OWN, password=password, token_cache=str(tmp_path / "cache.json")))
    options = ["--parameters", path, "--scenario", scenario]
    env = dict(os.environ, PYTHONPATH=str(ROOT / "tests"), SHOWN=str(shown))
    command = [sys.executable, "-c", code, str(program), *options]
    done = subprocess.run(command, env=env, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    copies = [json.loads(line) for line in shown.read_text().splitlines()]
    assert [copy.pop("password", None) for copy in copies] == passwords
    expected = dict(OWN, token_cache="temporary_token_cache.json")
    del expected["password"]
    assert copies == [expected] * len(passwords)


def test_saved_sign_in_works_in_the_next_tenant(parameters, cache):
    def run(password):
        path = parameters(**dict(OWN, token_cache="cache.json", password=password))
        with own_tenant() as tenant:
            users_of(run_program(*sample_command(path), tenant=tenant))
            return tenant.grants()

    assert run(OWN["password"]) == ["password"]
    assert run(None) == []
    expire_access_tokens(cache)
    assert run(None) == ["refresh_token"]


# Signals and terminals


def start(terminal, *command):
    """Start the local tenant in a new session, with a terminal or without. Wait for "ready".

    Return the process and a function that presses Ctrl+C.
    """
    master, stdin = None, subprocess.DEVNULL
    if terminal:
        import pty

        master, stdin = pty.openpty()

    def prepare():
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Under nohup, the tests ignore it.
        take_terminal() if terminal else os.setsid()

    command, pipe = local_tenant_command(*command), subprocess.PIPE
    process = subprocess.Popen(command, stdin=stdin, stdout=pipe, stderr=pipe, preexec_fn=prepare)
    assert process.stdout.readline() == b"ready\n"
    if terminal:
        return process, lambda: os.write(master, b"\x03")
    return process, lambda: os.killpg(process.pid, signal.SIGINT)


terminals = pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "none"])


@posix
@terminals
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signal_ends_the_command_and_what_it_has_started(name, terminal):
    process, _ = start(terminal, "sh", "-c", "sleep 50 & echo ready; wait")
    process.send_signal(getattr(signal, name))
    # The pipe reaches its end only when the command and its child have ended too.
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 128 + getattr(signal, name)


@posix
@terminals
def test_command_decides_what_ctrl_c_does(terminal):
    code = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *args: sys.exit(5))
print("ready", flush=True)
time.sleep(50)
"""
    process, press_ctrl_c = start(terminal, sys.executable, "-c", code)
    press_ctrl_c()
    assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 5


@posix
def test_terminal_says_that_any_password_is_right(parameters):
    command = local_tenant_command("--parameters", parameters(**dict(OWN, password=None)))
    status, screen = run_on_terminal(command, prompt="Password for", keys=b"anything\n")
    assert (status, "Users from graph:" in screen) == (0, True)
    note = screen.partition("Password for")[0]
    assert "any password" in note and "MFA" in note


@posix
def test_terminal_shows_no_note_about_the_shipped_parameters():
    _, screen = run_on_terminal(local_tenant_command())
    assert screen.startswith("Users from graph:")
