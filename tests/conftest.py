"""The fixtures: a local tenant where everything works, and the sample's command run against it."""

import json
import signal
import subprocess
import tempfile

import pytest

pytest.register_assert_rewrite("helpers")  # A failing assert there shows what was compared.
from helpers import (  # noqa: E402
    PROMPT,
    SAMPLE_PYTHON,
    Result,
    decode,
    run_on_terminal,
    sample_command,
    shipped_settings,
    shipped_tenant,
)

STREAMS = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
POPEN_OPTIONS = ("stdin", "stdout", "stderr", "cwd", "preexec_fn")

# A test run in the background ignores Ctrl+C, and so would the processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config, items):
    """If the sample runs on Python 2.7, run only the tests that are marked py27."""
    command = [SAMPLE_PYTHON, "-c", "import sys; print(sys.version_info[0])"]
    if subprocess.check_output(command, text=True).strip() != "2":
        return
    deselected = [item for item in items if not item.get_closest_marker("py27")]
    config.hook.pytest_deselected(items=deselected)
    items[:] = [item for item in items if item.get_closest_marker("py27")]


@pytest.fixture
def tenant():
    """A running local tenant where everything works. Each test changes one answer."""
    with shipped_tenant() as tenant:
        yield tenant


@pytest.fixture
def parameters(tmp_path):
    """Return a function that writes parameters.json with changed settings and returns its path.

    A setting that's changed to None is removed. If contents is given, the file contains those
    bytes instead.
    """

    def write(contents=None, **changes):
        path = tmp_path / "parameters.json"
        if contents is None:
            settings = dict(shipped_settings(), **changes)
            settings = {key: value for key, value in settings.items() if value is not None}
            contents = json.dumps(settings).encode()
        path.write_bytes(contents)
        return str(path)

    return write


@pytest.fixture
def cache(tmp_path):
    """The path of the token cache if "token_cache" is "cache.json"."""
    return tmp_path / "cache.json"


@pytest.fixture
def command(tenant, parameters):
    """Return a function that returns the sample's command line and its environment."""

    def build(*options, path=None, constants=None, env=None, **changes):
        arguments = [*options, path or parameters(**changes)]
        environment = dict(tenant.environment(), PYTHONDONTWRITEBYTECODE="1", **(env or {}))
        return sample_command(*arguments, constants=constants), environment

    return build


@pytest.fixture
def start(command):
    """Return a function that starts the sample and returns the process."""
    started = []

    def start(*options, **more):
        popen = {key: more.pop(key) for key in POPEN_OPTIONS if key in more}
        argv, env = command(*options, **more)
        started.append(subprocess.Popen(argv, env=env, **popen))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def check(tenant, status, stdout, stderr, verbose=False):
    """Check what every run guarantees, and return the run's result."""
    if not verbose:
        for secret in tenant.directory.secrets:
            assert secret.encode() not in stdout + stderr
        assert b"Traceback" not in stderr
    if status != 0:
        assert stdout == b""
    return Result(status, decode(stdout), decode(stderr))


@pytest.fixture
def run(tenant, start):
    """Return a function that runs the sample and returns its status, stdout, and stderr."""

    def run(*options, **more):
        process = start(*options, **{**STREAMS, **more})
        stdout, stderr = process.communicate(timeout=60)
        verbose = "-v" in options or "--verbose" in options
        return check(tenant, process.returncode, stdout or b"", stderr or b"", verbose)

    return run


@pytest.fixture
def type_at_prompt(tenant, command):
    """Return a function that types keys at each password prompt and returns the result.

    Without keys, it types the right password. If the keys are None, it presses Ctrl+C. The
    result's stderr is everything that the terminal shows.
    """

    def type_at_prompt(keys="", **more):
        if keys is not None:
            keys = (keys or tenant.directory.password + "\n").encode()
        argv, env = command(**more)
        with tempfile.TemporaryFile() as stdout:
            status, screen = run_on_terminal(argv, PROMPT, keys, stdout=stdout, env=env)
            stdout.seek(0)
            return check(tenant, status, stdout.read(), screen.encode())

    return type_at_prompt
