"""Helpers that several test modules share: the sample's command, its results, and terminals."""

import contextlib
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
IMPATIENT = dict(NO_WAITS, TIMEOUT=[20, 1])  # A service that doesn't answer costs one second.

SIGN_IN_FAILED = "Could not sign in: "
CALL_FAILED = "Failed to call the Web Api: "
PROMPT = "Password for"
LOGIN = "login.microsoftonline.com"
GRAPH = "graph.microsoft.com"
USERS = "https://graph.microsoft.com/v1.0/users"

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


def result_of(command, **options):
    """Run a command to its end without input, and return its Result."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, timeout=100, **options
    )
    return Result(done.returncode, decode(done.stdout), decode(done.stderr))


def run_program(program, *arguments, env=os.environ):
    """Run the text of a program, which can import the sample, and return its Result."""
    env = dict(env, PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1")
    return result_of([SAMPLE_PYTHON, "-W", "ignore", "-c", program, *arguments], env=env)


def decode(output):
    """Return the output of a command as text with \\n as the line ending."""
    return output.decode("utf-8", "replace").replace("\r\n", "\n")


def users_of(result):
    """Return the users that a successful run has printed."""
    assert (result.status, result.stderr) == (0, "")
    return json.loads(result.stdout)["value"]


def sign_in_error(result):
    """Return the reason that a run shows for its failed sign-in."""
    return _reason(result, SIGN_IN_FAILED)


def call_error(result):
    """Return the reason that a run shows for its failed call of Graph."""
    return _reason(result, CALL_FAILED)


def _reason(result, failure):
    """Return what follows the failure in stderr. The run has status 1 and starts with it."""
    assert (result.status, result.stderr[: len(failure)]) == (1, failure), result.stderr
    reason = result.stderr[len(failure) :]
    assert reason.strip()
    return reason


def settings_error(result, tenant):
    """Return the message of a run that has failed with one line, before any request."""
    assert (result.status, result.stderr.count("\n"), tenant.requests) == (2, 1, [])
    return result.stderr


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


def read_terminal(master, prompt="", answer=None):
    """Return everything that is printed to a terminal until its last program has ended.

    Call answer at the first and the second prompt.
    """
    printed = b""
    answers = 0
    # On Linux, reading from a closed terminal raises an error.
    with contextlib.suppress(OSError):
        for more in iter(lambda: os.read(master, 65536), b""):
            printed += more
            if answer and answers < min(2, printed.count(prompt.encode())):
                answers += 1
                answer()
    os.close(master)
    return decode(printed)


def run_on_terminal(command, prompt="", keys=b"", **options):
    """Run a command on a terminal. At each prompt, type the keys, or press Ctrl+C if they're None.

    Return the command's exit status and everything that the terminal shows.
    """
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    streams = {"stdin": slave, "stdout": slave, "stderr": slave}
    process = subprocess.Popen(command, preexec_fn=take_terminal, **{**streams, **options})
    os.close(slave)

    def answer():
        press_ctrl_c(process) if keys is None else os.write(master, keys)

    screen = read_terminal(master, prompt, answer)
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
