"""Sign in once: the password prompt and the token cache file."""

import json
import os
import stat
import subprocess

import pytest
from conftest import CALL_FAILED, NO_SIGN_IN, interrupt, posix, read_terminal
from tenant.scenarios import SCENARIOS

COLD = ["discovery", "instance", "realm", "token", "graph"]
WARM = ["discovery", "graph"]
MISSING = (
    NO_SIGN_IN + 'no kept sign-in serves, and "password" is missing; run this once at a terminal\n'
)


@pytest.fixture
def cache(tmp_path):
    """The token cache's path, as 'token_cache': 'cache.json' names it."""
    return tmp_path / "cache.json"


def beside(cache):
    """Return the names of all that lies in the cache's folder."""
    return sorted(os.listdir(cache.parent))


def expire(cache):
    """Let the access token in the cache file have expired."""
    state = json.loads(cache.read_text())
    for entry in state["AccessToken"].values():
        entry["expires_on"] = "1000000000"
    cache.write_text(json.dumps(state))


@pytest.fixture
def cached(tenant, run, cache):
    """Return a function that runs the command with the cache and gives the steps of that run."""

    def cached(**more):
        before = len(tenant.requests)
        result = run(token_cache=cache.name, **more)
        assert (result.status, result.stderr) == (0, "")
        assert beside(cache) == ["cache.json", "parameters.json"]
        return tenant.steps()[before:]

    return cached


@pytest.mark.py27
def test_a_second_run_needs_no_token_request_and_no_password(cached):
    assert cached() == COLD
    assert cached() == WARM
    assert cached(password=None) == WARM


@pytest.mark.py27
@pytest.mark.parametrize("nothing", [None, ""])
def test_without_the_setting_nothing_is_written(tenant, run, tmp_path, nothing):
    run(token_cache=nothing)
    run(token_cache=nothing)
    assert tenant.steps() == COLD + COLD
    assert os.listdir(str(tmp_path)) == ["parameters.json"]


@pytest.mark.py27
def test_an_expired_token_is_refreshed_without_the_password(tenant, cached, cache):
    cached()
    expire(cache)
    assert cached(password="") == ["discovery", "token", "graph"]
    assert tenant.grants() == ["password", "refresh_token"]
    assert cached() == WARM


@pytest.mark.py27
def test_a_revoked_refresh_token_falls_back_to_the_password(tenant, cached, cache):
    cached()
    expire(cache)
    tenant.entra.revoke()
    cached()
    assert tenant.grants() == ["password", "refresh_token", "password"]
    assert cached() == WARM


@pytest.mark.py27
@pytest.mark.parametrize("scenario", ["sign-in-ended", "conditional-access"])
def test_a_kept_sign_in_that_a_policy_has_ended(tenant, cached, cache, run, scenario):
    cached()
    expire(cache)
    SCENARIOS[scenario](tenant)
    assert run(token_cache=cache.name, password=None) == (1, "", MISSING)
    assert tenant.grants() == ["password", "refresh_token"]


@pytest.mark.py27
@pytest.mark.parametrize("password", [None, ""])
def test_without_a_terminal_a_missing_password_is_told(tenant, run, password):
    assert run(password=password) == (1, "", MISSING)
    assert "token" not in tenant.steps()


@posix
def test_a_missing_password_is_told_with_stdin_closed(start):
    process = start(password=None, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(0))
    assert process.stderr.read().decode() == MISSING
    assert process.wait() == 1


def test_another_users_account_is_never_used(tenant, cached, run, cache):
    cached()
    username = "somebody_else@your_tenant.com"
    assert run(token_cache=cache.name, username=username, password=None) == (1, "", MISSING)
    assert tenant.steps().count("graph") == 1


def test_the_account_is_found_whatever_the_case(cached):
    cached()
    assert cached(username="YOUR_USERNAME@your_tenant.COM", password=None) == WARM


def test_an_empty_file_is_an_empty_cache(cached, cache):
    cache.write_bytes(b"")
    assert cached() == COLD
    assert cached() == WARM


@pytest.mark.py27
@pytest.mark.parametrize(
    "contents", [b"{", b'{"AccessToken": {"a": {"home', b"[]", b"1", b'{"a": 1}', b"\x80\x00\xff"]
)
def test_a_file_that_is_no_token_cache_is_told_and_left_alone(tenant, run, cache, contents):
    cache.write_bytes(contents)
    result = run(token_cache=cache.name)
    assert (result.status, tenant.requests) == (2, [])
    assert "error: {}: ".format(cache) in result.stderr
    assert cache.read_bytes() == contents


@pytest.mark.py27
def test_the_parameters_file_is_not_taken_for_a_cache(tenant, run, parameters):
    path = parameters(token_cache="parameters.json")
    before = open(path).read()
    result = run(path=path)
    assert (result.status, tenant.requests) == (2, [])
    assert result.stderr.endswith("error: {}: not a token cache\n".format(path))
    assert open(path).read() == before


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root reads everything")
def test_a_cache_that_cannot_be_read_is_told(tenant, run, cache):
    cache.write_text("{}")
    cache.chmod(0)
    result = run(token_cache=cache.name)
    assert (result.status, tenant.requests) == (2, [])
    assert "error: {}: ".format(cache) in result.stderr


@posix
@pytest.mark.py27
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("before", [None, 0o666])
def test_the_cache_is_for_its_owner_alone(start, cache, umask, before):
    if before:
        cache.write_text("{}")
        cache.chmod(before)
    process = start(
        token_cache="cache.json", stdout=subprocess.DEVNULL, preexec_fn=lambda: os.umask(umask)
    )
    assert process.wait() == 0
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


@posix
def test_the_cache_has_never_been_open_to_others(command, cache, tmp_path):
    argv, env = command(token_cache=cache.name)
    trace = tmp_path / "trace.txt"
    try:
        subprocess.check_call(
            ["strace", "-f", "-o", str(trace), "-e", "trace=open,openat,creat", *argv],
            env=env,
            stdout=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        pytest.skip("needs strace")
    opened = [line for line in trace.read_text().splitlines() if "O_CREAT" in line]
    mine = [line for line in opened if str(tmp_path) in line]
    assert mine and all("O_EXCL" in line and ", 0600)" in line for line in mine)


@pytest.mark.py27
def test_a_cache_that_cannot_be_written_does_not_cost_the_answer(tenant, run, tmp_path):
    tenant.directory.size = 200
    result = run(token_cache="no/such/folder/cache.json")
    assert result.status == 0
    assert len(json.loads(result.stdout)["value"]) == 200
    path = os.path.join(str(tmp_path), "no/such/folder/cache.json")
    assert result.stderr.startswith("{}: the token cache cannot be written: ".format(path))
    assert result.stderr.count("\n") == 1
    assert os.listdir(str(tmp_path)) == ["parameters.json"]


@posix
def test_a_cache_that_cannot_be_written_leaves_no_litter(start, cache):
    """A file may have no byte here, as on a full disk; stdout is no file."""
    import resource

    process = start(
        token_cache="cache.json",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0
    assert json.loads(stdout)["value"]
    assert stderr.decode().startswith("{}: the token cache cannot be written: ".format(cache))
    assert beside(cache) == ["parameters.json"]


def test_a_relative_cache_lies_beside_the_parameters_from_wherever(command, cache, tmp_path):
    argv, env = command(token_cache=cache.name)
    for folder, path in [(tmp_path.parent, tmp_path.name + "/parameters.json"), (tmp_path, None)]:
        argv[-1] = path or "parameters.json"
        done = subprocess.run(argv, env=env, cwd=str(folder), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert beside(cache) == ["cache.json", "parameters.json"]
        cache.unlink()


def test_the_cache_is_saved_when_the_call_fails(tenant, run, cache):
    SCENARIOS["forbidden"](tenant)
    assert run(token_cache=cache.name).stderr.startswith(CALL_FAILED)
    assert json.loads(cache.read_text())["RefreshToken"]


def test_eight_runs_at_once_share_one_cache(tenant, start, parameters, cache):
    path = parameters(token_cache=cache.name)
    runs = [start(path=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for process in runs:
        stdout, stderr = process.communicate()
        assert process.returncode == 0
        # Windows does not let a file be replaced while another run reads it.
        assert stderr == b"" or os.name == "nt"
        assert json.loads(stdout) == tenant.graph.page()
    assert beside(cache) == ["cache.json", "parameters.json"]
    assert json.loads(cache.read_text())["RefreshToken"]


@pytest.fixture
def typed(start):
    """Return a function that answers the prompt at a terminal and gives all that is printed.

    None for the keys is Ctrl-C, sent as a signal: the terminal controls nobody here.
    """
    pty = pytest.importorskip("pty")

    def typed(keys, **more):
        master, slave = pty.openpty()
        process = start(stdin=slave, stdout=subprocess.PIPE, stderr=slave, **more)
        os.close(slave)
        screen = b""
        while not screen.endswith(b": "):
            screen += os.read(master, 1024)
        if keys is None:
            status = interrupt(process)
        else:
            os.write(master, keys)
        stdout = process.stdout.read().decode("utf-8")
        status = process.wait()
        return status, stdout, screen.decode() + read_terminal(master)

    return typed


PROMPT = "Password for your_username@your_tenant.com: "


@posix
@pytest.mark.py27
def test_the_password_is_asked_for_at_a_terminal_and_not_echoed(tenant, typed, cache):
    keys = tenant.directory.password.encode() + b"\n"
    status, stdout, screen = typed(keys, password=None, token_cache=cache.name)
    assert (status, json.loads(stdout)) == (0, tenant.graph.page())
    if "Warning" not in screen:  # Of an old Python's libraries.
        assert screen == PROMPT + "\n"
    assert tenant.directory.password not in screen


@posix
def test_the_password_is_not_asked_for_where_the_cache_serves(cached, start, cache):
    import pty

    cached()
    master, slave = pty.openpty()
    process = start(
        stdin=slave, stdout=subprocess.PIPE, stderr=slave, password=None, token_cache=cache.name
    )
    assert process.stdout.read().startswith(b"{")
    assert process.wait() == 0
    os.close(slave)
    assert read_terminal(master) == ""


@posix
@pytest.mark.parametrize("keys", [b"\n", b"\x04"])
def test_nothing_typed_is_no_password(tenant, typed, keys):
    status, stdout, screen = typed(keys, password="")
    assert (status, stdout) == (1, "")
    assert screen.endswith(MISSING)
    assert "token" not in tenant.steps()


@posix
def test_ctrl_c_at_the_prompt_ends_the_run_quietly(typed):
    status, stdout, screen = typed(None, password=None)
    assert (status, stdout) == (130, "")
    assert screen.strip() == PROMPT.strip()
