"""The fixtures: a happy tenant, and the real command run against it as a subprocess."""

import json
import os
import signal
import subprocess
import sys
from collections import namedtuple

import pytest
from local_tenant import PARAMETERS, SAMPLE, load
from tenant import LocalTenant

SAMPLE_PYTHON = os.environ.get("SAMPLE_PYTHON", sys.executable)
CALL_FAILED = "Failed to call the Web Api: "
NO_SIGN_IN = "Could not sign in: "

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")

# A suite that runs in the background ignores Ctrl-C, and what it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

Result = namedtuple("Result", "status stdout stderr")


def pytest_collection_modifyitems(config, items):
    """Leave out what Python 2.7 is not promised to do, and start what waits before all else."""
    command = [SAMPLE_PYTHON, "-c", "import sys; print(sys.version_info[0])"]
    if subprocess.check_output(command, text=True).strip() == "2":
        left_out = [item for item in items if not item.get_closest_marker("py27")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("py27")]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def shipped_tenant():
    """Return the tenant of the shipped parameters, to be changed and entered."""
    return LocalTenant(load(PARAMETERS))


@pytest.fixture
def tenant():
    """A happy tenant; each test changes one answer."""
    with shipped_tenant() as tenant:
        yield tenant


@pytest.fixture
def parameters(tmp_path):
    """Return a function that writes the shipped parameters, with changes, to a file of its own.

    A change to None takes the setting away; contents are written as they are.
    """

    def write(contents=None, **changes):
        path = tmp_path / "parameters.json"
        if contents is None:
            config = dict(json.loads(PARAMETERS.read_text(encoding="utf-8")), **changes)
            config = {key: value for key, value in config.items() if value is not None}
            contents = json.dumps(config).encode()
        path.write_bytes(contents)
        return str(path)

    return write


@pytest.fixture
def command(tenant, parameters):
    """Return a function that gives subprocess's arguments for the command, and its environment."""

    def build(*options, path=None, env=None, **changes):
        argv = [SAMPLE_PYTHON, str(SAMPLE), *options, path or parameters(**changes)]
        return argv, dict(tenant.environment(), **(env or {}))

    return build


@pytest.fixture
def check(tenant):
    """Return a function that checks what holds for every outcome, and gives the result back."""

    def check(status, stdout, stderr, verbose=False):
        if not verbose:
            for secret in tenant.directory.secrets:
                assert secret.encode() not in stdout + stderr
            assert b"Traceback" not in stderr
        if status:
            assert stdout == b""
        return Result(
            status,
            stdout.decode("utf-8").replace("\r\n", "\n"),
            stderr.decode("utf-8", "replace").replace("\r\n", "\n"),
        )

    return check


@pytest.fixture
def run(command, check):
    """Return a function that runs the command to its end and gives status, stdout and stderr."""

    def run(*options, **more):
        argv, env = command(*options, **more)
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=150
        )
        return check(done.returncode, done.stdout, done.stderr, "-v" in options)

    return run


@pytest.fixture
def start(command):
    """Return a function that starts the command and gives the process."""
    started = []

    def start(*options, **more):
        popen = {
            key: more.pop(key) for key in ("stdin", "stdout", "stderr", "preexec_fn") if key in more
        }
        argv, env = command(*options, **more)
        started.append(subprocess.Popen(argv, env=env, **popen))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def read_terminal(master):
    """Return all that is printed on a terminal until nobody has it open any more."""
    printed = b""
    try:
        while True:
            more = os.read(master, 65536)
            if not more:
                break
            printed += more
    except OSError:  # Linux says EIO where others say end of file.
        pass
    os.close(master)
    return printed.decode("utf-8").replace("\r\n", "\n")


def interrupt(process):
    """Send Ctrl-C's signal until the process has ended, and return its status.

    Once is not enough: Python misses a signal that comes just before it begins to wait.
    """
    while True:
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            pass


@pytest.fixture
def on_terminal(start):
    """Return a function that runs the command with stdout on a terminal: status and output."""
    pty = pytest.importorskip("pty")

    def on_terminal(**more):
        master, slave = pty.openpty()
        process = start(stdout=slave, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **more)
        os.close(slave)
        printed = read_terminal(master)
        assert process.stderr.read() == b""
        return process.wait(), printed

    return on_terminal


@pytest.fixture
def document(tenant):
    """Return a function that gives the whole of what a success prints."""

    def document(answer=None):
        if answer is None:
            answer = tenant.graph.page({"$top": 1000000})
        return json.dumps(answer, indent=2, ensure_ascii=False) + "\n"

    return document
