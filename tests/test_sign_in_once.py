"""Sign in once: the password prompt and the token cache file."""

import json
import os
import stat
import subprocess

import pytest
from conftest import interrupt, posix, read_terminal

COLD = ["discovery", "instance", "realm", "token", "graph"]
WARM = ["discovery", "graph"]


@pytest.fixture
def cache(tmp_path):
    """The token cache's path, as 'token_cache': 'cache.json' names it."""
    return tmp_path / "cache.json"


@pytest.fixture
def missing(tmp_path):
    """What is told when a password is needed and not to be had."""
    path = tmp_path / "parameters.json"
    return '{}: "password" is missing, and none was typed\n'.format(path)


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
def test_without_the_setting_nothing_is_written(tenant, run, tmp_path):
    run()
    run()
    assert tenant.steps() == COLD + COLD
    assert os.listdir(str(tmp_path)) == ["parameters.json"]


@pytest.mark.parametrize("nothing", ["", False, 0, []])
def test_an_empty_setting_is_no_cache(run, document, tmp_path, nothing):
    assert run(token_cache=nothing) == (0, document(), "")
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
    tenant.revoke()
    cached()
    assert tenant.grants() == ["password", "refresh_token", "password"]
    assert cached() == WARM


@pytest.mark.py27
def test_a_revoked_refresh_token_without_a_password(tenant, cached, cache, run, missing):
    cached()
    expire(cache)
    tenant.revoke()
    result = run(token_cache=cache.name, password=None)
    assert result == (2, "", missing)
    assert tenant.grants() == ["password", "refresh_token"]


@pytest.mark.py27
@pytest.mark.parametrize("password", [None, ""])
def test_without_a_terminal_a_missing_password_is_told(tenant, run, missing, password):
    result = run(password=password)
    assert result == (2, "", missing)
    assert "token" not in tenant.steps()


def test_another_users_account_is_never_used(tenant, cached, run, cache):
    cached()
    tenant.username = "somebody_else@your_tenant.com"
    result = run(token_cache=cache.name, username=tenant.username, password=None)
    assert result.status == 2
    assert tenant.steps().count("graph") == 1


def test_the_account_is_found_whatever_the_case(cached):
    cached()
    assert cached(username="YOUR_USERNAME@your_tenant.COM", password=None) == WARM


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b'{"AccessToken": {"a": {"home',
        b"[]",
        b"null",
        b"1",
        b'"a"',
        b'{"AccessToken": []}',
        b'{"Account": {"a": 1}}',
        b"\x80\x00\xff",
        b"[" * 100000,
    ],
)
def test_a_damaged_cache_counts_as_empty_and_is_replaced(cached, cache, damage):
    cache.write_bytes(damage)
    assert cached() == COLD
    assert cached() == WARM


@posix
@pytest.mark.py27
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_the_cache_is_for_its_owner_alone_whatever_the_umask(start, cache, umask):
    process = start(
        token_cache="cache.json", stdout=subprocess.DEVNULL, preexec_fn=lambda: os.umask(umask)
    )
    assert process.wait() == 0
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


@posix
def test_a_cache_that_all_could_read_is_closed_to_them(cached, cache):
    cache.write_text("{}")
    cache.chmod(0o666)
    cached()
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


@posix
def test_a_link_to_the_cache_stays_a_link(run, cache, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.symlink_to(elsewhere / "real.json")
    assert run(token_cache=cache.name).status == 0
    assert cache.is_symlink()
    assert os.listdir(elsewhere) == ["real.json"]


@pytest.mark.py27
@pytest.mark.parametrize("name", ["no/such/folder/cache.json", "folder"])
def test_a_cache_that_cannot_be_written_does_not_cost_the_answer(tenant, run, tmp_path, name):
    (tmp_path / "folder").mkdir()
    tenant.users = 200
    result = run(token_cache=name)
    assert result.status == 0
    assert len(json.loads(result.stdout)["value"]) == 200
    assert result.stderr.startswith("{}: ".format(tmp_path / name))
    assert result.stderr.count("\n") == 1
    assert sorted(os.listdir(str(tmp_path))) == ["folder", "parameters.json"]
    assert os.listdir(str(tmp_path / "folder")) == []


@pytest.mark.py27
@pytest.mark.parametrize(
    "name", ["parameters.json", "no/../parameters.json", "link.json", "hard.json"]
)
def test_the_parameters_file_is_not_taken_for_a_cache(tenant, run, parameters, tmp_path, name):
    path = parameters(token_cache=name)
    if name in ("link.json", "hard.json"):
        {"link.json": os.symlink, "hard.json": os.link}[name](path, str(tmp_path / name))
    before = open(path).read()
    result = run(path=path)
    problem = '{}: "token_cache" must not be the parameters file\n'.format(path)
    assert result == (2, "", problem)
    assert open(path).read() == before
    assert tenant.requests == []


def test_a_relative_cache_lies_beside_the_parameters_from_wherever(command, cache, tmp_path):
    argv, env = command(token_cache=cache.name)
    argv[-1] = os.path.join(tmp_path.name, "parameters.json")
    done = subprocess.run(argv, env=env, cwd=str(tmp_path.parent), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert beside(cache) == ["cache.json", "parameters.json"]


def test_the_cache_is_saved_when_the_call_fails(tenant, run, cache):
    tenant.replace("graph", tenant.graph_error(None, 403, "Authorization_RequestDenied", "No."))
    assert run(token_cache=cache.name).status == 1
    assert json.loads(cache.read_text())["RefreshToken"]


@pytest.mark.parametrize("time", range(3))
def test_eight_runs_at_once_share_one_cache(tenant, start, parameters, cache, time):
    path = parameters(token_cache=cache.name)
    runs = [start(path=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for process in runs:
        stdout, stderr = process.communicate()
        assert (process.returncode, stderr) == (0, b"")
        assert json.loads(stdout) == tenant.page({})
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
            interrupt(process)
        else:
            os.write(master, keys)
        stdout = process.stdout.read().decode("utf-8")
        return process.wait(), stdout, screen.decode() + read_terminal(master)

    return typed


PROMPT = "Password for your_username@your_tenant.com: "


@posix
def test_the_password_is_asked_for_at_a_terminal_and_not_echoed(tenant, typed, document, cache):
    keys = tenant.password.encode() + b"\n"
    result = typed(keys, password=None, token_cache=cache.name)
    assert result == (0, document(), PROMPT + "\n")


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
    os.close(master)


@posix
@pytest.mark.parametrize("keys", [b"\n", b"\x04"])
def test_nothing_typed_is_no_password(tenant, typed, missing, keys):
    status, stdout, screen = typed(keys, password="")
    assert (status, stdout) == (2, "")
    assert screen.endswith(missing)
    assert "token" not in tenant.steps()


@posix
def test_ctrl_c_at_the_prompt_ends_the_run_quietly(typed):
    status, stdout, screen = typed(None, password=None)
    assert (status, stdout) == (130, "")
    assert screen.strip() == PROMPT.strip()
