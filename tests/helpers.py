"""Helpers that several test modules share: the sample's command, its results, and terminals."""

import json
import os
import runpy
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest
from local_tenant import load
from project import PARAMETERS, ROOT, SAMPLE
from tenant import LocalTenant

DRIVER = ROOT / "tests" / "driver.py"
SAMPLE_PYTHON = os.environ.get("SAMPLE_PYTHON", sys.executable)

sample = SimpleNamespace(**runpy.run_path(str(SAMPLE)))  # The sample's constants.
TRIES = 1 + len(sample.RETRY_WAITS)
NO_WAITS = {"RETRY_WAITS": [0] * len(sample.RETRY_WAITS)}

SIGN_IN_FAILED = "Could not sign in: "
CALL_FAILED = "Failed to call the Web Api: "
PROMPT = "Password for"
LOGIN = "login.microsoftonline.com"
GRAPH = "graph.microsoft.com"
USERS = "https://graph.microsoft.com/v1.0/users"
# If an environment variable has this name, requests uses its value as the proxy for Graph only.
GRAPH_PROXY = "https://graph.microsoft.com_proxy"

# The steps of a run, in order: first without a saved access token, and then with one.
COLD_RUN = ["discovery", "instance", "realm", "token", "graph"]
WARM_RUN = ["discovery", "graph"]

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

Result = namedtuple("Result", "status stdout stderr")


def shipped_tenant():
    """Return the local tenant of the shipped parameters.json, not started yet."""
    return LocalTenant(load(PARAMETERS))


def shipped_settings():
    """Return the settings of the shipped parameters.json."""
    return json.loads(PARAMETERS.read_text(encoding="utf-8"))


def sample_command(*arguments, constants=None):
    """Return the command that runs the sample, with different values for its constants if given."""
    if constants is None:
        return [SAMPLE_PYTHON, str(SAMPLE), *arguments]
    return [SAMPLE_PYTHON, str(DRIVER), json.dumps(constants), *arguments]


def run_program(program, *arguments, **options):
    """Run the text of a program with the Python that runs the sample, and return its Result.

    The program can import the sample.
    """
    env = dict(options.pop("env", os.environ), PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    command = [SAMPLE_PYTHON, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(
        command, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, **options
    )
    return Result(done.returncode, decode(done.stdout), decode(done.stderr))


def decode(output):
    """Return the output of a command as text with \\n as the line ending."""
    return output.decode("utf-8", "replace").replace("\r\n", "\n")


def users_of(result):
    """Return the users that a successful run has printed."""
    assert (result.status, result.stderr) == (0, "")
    return json.loads(result.stdout)["value"]


def user_numbers(result):
    """Return the numbers of the users that a successful run has printed. The first one is 1."""
    return [int(user["id"][-12:]) for user in users_of(result)]


def document(answer):
    """Return the text that the sample prints for an answer."""
    return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"


def files_in(folder):
    """Return the names of the files in the folder."""
    return sorted(os.listdir(str(folder)))


def expire_access_tokens(cache):
    """Change the token cache file so that its access tokens have expired."""
    contents = json.loads(cache.read_text())
    for entry in contents["AccessToken"].values():
        entry["expires_on"] = "1000000000"
    cache.write_text(json.dumps(contents))


def take_terminal():
    """In a new process, make its stdin its terminal.

    Otherwise, its terminal would be the one that runs the tests, and prompts would appear there.
    """
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_terminal(master, prompt="", answer=None, times=1):
    """Return everything that is printed to a terminal until its last program has ended.

    Call answer when the prompt appears, but not more often than this number of times.
    """
    printed = b""
    answers = 0
    try:
        while True:
            more = os.read(master, 65536)
            if not more:
                break
            printed += more
            if answer and answers < times and printed.count(prompt.encode()) > answers:
                answers += 1
                answer()
    except OSError:  # On Linux, reading from a closed terminal raises an error.
        pass
    os.close(master)
    return decode(printed)


def run_on_terminal(command, prompt="", keys=b"", **options):
    """Run a command on a terminal. When the prompt appears, type the keys.

    Return the command's exit status and everything that the terminal shows.
    """
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, preexec_fn=take_terminal, **options
    )
    os.close(slave)
    screen = read_terminal(master, prompt, lambda: os.write(master, keys))
    return process.wait(), screen


def press_ctrl_c(process):
    """Send the Ctrl+C signal repeatedly until the process ends, and return its exit status.

    Python can miss a signal that arrives just before it starts to wait, so one signal
    isn't enough.
    """
    while True:
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            pass


def local_tenant_command(*arguments):
    """Return the command that runs the local tenant."""
    return [sys.executable, str(Path(ROOT, "tests", "local_tenant.py")), *arguments]
