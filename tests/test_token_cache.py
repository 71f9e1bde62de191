"""The token cache file: saved sign-ins, who can read it, and files that can't be used."""

import ctypes
import json
import os
import shutil
import socket
import stat
import subprocess

import pytest
from helpers import (
    CALL_FAILED,
    COLD_RUN,
    SIGN_IN_FAILED,
    WARM_RUN,
    expire_access_tokens,
    files_in,
    linux,
    posix,
    user_numbers,
    users_of,
)
from tenant.scenarios import SCENARIOS


@pytest.fixture
def run_cached(tenant, run, tmp_path):
    """Return a function that runs the sample with the cache and returns the run's steps."""

    def run_cached(**more):
        earlier = len(tenant.requests)
        users_of(run(token_cache="cache.json", **more))
        assert files_in(tmp_path) == ["cache.json", "parameters.json"]
        return tenant.steps()[earlier:]

    return run_cached


@pytest.mark.py27
def test_second_run_needs_no_password_and_no_token_request(run_cached):
    assert run_cached() == COLD_RUN
    assert run_cached() == WARM_RUN
    assert run_cached(password=None) == WARM_RUN


@pytest.mark.py27
@pytest.mark.parametrize("nothing", [None, ""])
def test_without_the_setting_nothing_is_saved(tenant, run, tmp_path, nothing):
    users_of(run(token_cache=nothing))
    assert tenant.steps() == COLD_RUN
    assert files_in(tmp_path) == ["parameters.json"]


@pytest.mark.py27
def test_expired_access_token_is_renewed_without_the_password(tenant, run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    assert run_cached(password=None) == ["discovery", "token", "graph"]
    assert tenant.grants() == ["password", "refresh_token"]
    assert run_cached() == WARM_RUN


@pytest.mark.py27
def test_password_is_used_if_the_saved_sign_in_has_ended(tenant, run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    tenant.entra.revoke_refresh_tokens()
    run_cached()
    assert tenant.grants() == ["password", "refresh_token", "password"]
    assert run_cached() == WARM_RUN


@pytest.mark.py27
def test_refused_saved_sign_in_is_reported_with_the_error_triple(tenant, run, run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    tenant.entra.refuse(53003, "Access has been blocked by Conditional Access policies.")
    result = run(token_cache="cache.json", password=None)
    reason, error, description, correlation_id = result.stderr.splitlines()
    assert result.status == 1
    assert reason.startswith(SIGN_IN_FAILED)
    assert "terminal" in reason
    assert error == "invalid_grant"
    assert "AADSTS53003" in description
    assert "Correlation ID: " + correlation_id in description
    assert tenant.grants() == ["password", "refresh_token"]


def add_account_before(cache, **refresh_token):
    """Put another account with the same username before the account in the token cache file.

    It has no tokens, or the same refresh token with these changes.
    """
    contents = json.loads(cache.read_text())
    for section in ("Account", "RefreshToken") if refresh_token else ("Account",):
        ((key, entry),) = contents[section].items()
        other_key = key.replace(entry["home_account_id"], "other.tenant")
        other = dict(entry, home_account_id="other.tenant")
        if section == "RefreshToken":
            other.update(refresh_token)
        contents[section] = {other_key: other, key: entry}
    cache.write_text(json.dumps(contents))


@pytest.mark.py27
@pytest.mark.parametrize("change", [{}, {"secret": "unknown"}], ids=["no tokens", "refused"])
def test_second_account_is_used_if_the_first_one_cannot_be(tenant, run_cached, cache, change):
    run_cached()
    add_account_before(cache, **change)
    run_cached(password=None)
    assert tenant.grants() == ["password"] + ["refresh_token"] * len(change)


def test_account_of_another_user_is_never_used(tenant, run, run_cached):
    run_cached()
    result = run(token_cache="cache.json", username="other@your_tenant.com", password=None)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert tenant.steps().count("graph") == 1


@posix
def test_prompt_does_not_appear_if_a_saved_sign_in_works(run_cached, type_at_prompt):
    run_cached()
    result = type_at_prompt(password=None, token_cache="cache.json")
    assert (result.status, result.stderr) == (0, "")


# Files that can't be used


@pytest.mark.py27
@pytest.mark.parametrize(
    "contents",
    [
        b'{"AccessToken": {"a": {"home',
        b"null",
        b'["AccessToken"]',
        b'{"auths": {"registry.example.com": {}}}',
        b'{"AccessToken": []}',
        b'{"AccessToken": {}, "RefreshToken": null}',
        b"\x80\x00\xff",
    ],
)
def test_file_that_is_not_a_token_cache_is_reported_and_kept(tenant, run, cache, contents):
    cache.write_bytes(contents)
    result = run(token_cache="cache.json")
    assert result.status == 2
    assert tenant.requests == []
    assert str(cache) in result.stderr
    assert '"token_cache"' in result.stderr
    assert "delete" in result.stderr
    assert cache.read_bytes() == contents


@pytest.mark.parametrize("contents", [b"", b"{}"])
def test_empty_file_can_be_used_as_a_cache(run_cached, cache, contents):
    cache.write_bytes(contents)
    assert run_cached() == COLD_RUN
    assert run_cached() == WARM_RUN


def make_socket(name):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)


def make_device(name):
    try:
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the permission to make a device node")


NODES = {"folder": os.mkdir}
if os.name == "posix":
    NODES.update({"FIFO": os.mkfifo, "socket": make_socket, "device": make_device})


@pytest.mark.py27
@pytest.mark.parametrize("kind", NODES)
def test_token_cache_that_is_not_a_file_is_reported_and_kept(
    tenant, run, cache, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)  # The path of a socket can't be long.
    NODES[kind](cache.name)
    before = cache.stat()
    result = run(token_cache="cache.json")
    assert result.status == 2
    assert tenant.requests == []
    assert str(cache) in result.stderr
    assert "delete" not in result.stderr
    after = cache.stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)


def obey_file_permissions():
    """In a new process, make root obey the permissions of files, as other users do."""
    if os.geteuid() == 0:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
            assert ctypes.CDLL(None).prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


@linux
@pytest.mark.py27
def test_unreadable_cache_is_reported_without_the_advice_to_delete_it(tenant, run, cache):
    cache.write_text("{}")
    cache.chmod(0)
    result = run(token_cache="cache.json", preexec_fn=obey_file_permissions)
    assert result.status == 2
    assert tenant.requests == []
    assert str(cache) in result.stderr
    assert "Permission denied" in result.stderr
    assert "delete" not in result.stderr


@linux
@pytest.mark.parametrize("name", ["Größe.json", "cache\0.json"], ids=["not ASCII", "NUL"])
def test_path_that_cannot_be_encoded_is_reported_in_one_line(tenant, run, tmp_path, name):
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run(token_cache=name, env=c_locale)
    assert result.status == 2
    assert tenant.requests == []
    assert result.stderr.count("\n") == 1
    assert files_in(tmp_path) == ["parameters.json"]


# Saving


@posix
@pytest.mark.py27
@pytest.mark.parametrize(
    "umask, before",
    [(0o000, None), (0o022, 0o666), (0o077, None)],
    ids=["umask 000", "public file", "umask 077"],
)
def test_only_the_owner_can_read_the_cache(run, cache, umask, before):
    if before:
        cache.write_text("{}")
        cache.chmod(before)
    users_of(run(token_cache="cache.json", preexec_fn=lambda: os.umask(umask)))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


@posix
@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_new_cache_file_is_private_from_the_start(command, tmp_path):
    argv, env = command(token_cache="cache.json")
    trace = tmp_path / "trace.txt"
    strace = ["strace", "-f", "-o", str(trace), "-e", "trace=open,openat,creat"]
    subprocess.run([*strace, *argv], env=env, stdout=subprocess.DEVNULL, check=True)
    created = [
        line
        for line in trace.read_text().splitlines()
        if "O_CREAT" in line and str(tmp_path) in line
    ]
    assert created
    assert [line for line in created if "O_EXCL" not in line or ", 0600)" not in line] == []


def test_unchanged_cache_is_not_written(run_cached, cache):
    run_cached()
    before = cache.stat()
    run_cached()
    after = cache.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@posix
@pytest.mark.py27
def test_save_does_not_change_the_file_that_another_run_is_reading(run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    contents = cache.read_bytes()
    with cache.open("rb") as other_run:
        run_cached()
        assert other_run.read() == contents
    assert cache.read_bytes() != contents


@posix
@pytest.mark.py27
@pytest.mark.parametrize("exists", [True, False], ids=["existing target", "no target"])
def test_symbolic_link_stays_and_its_target_is_replaced(run, cache, tmp_path, exists):
    target = tmp_path / "elsewhere" / "real.json"
    target.parent.mkdir()
    if exists:
        target.write_text("{}")
    cache.symlink_to("elsewhere/real.json")
    users_of(run(token_cache="cache.json"))
    assert cache.is_symlink()
    assert json.loads(target.read_text())["RefreshToken"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert files_in(target.parent) == ["real.json"]


def allow_no_bytes_in_files():
    """In a new process, make each write to a file fail, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.py27
@pytest.mark.parametrize(
    "path, preexec_fn",
    [
        ("no/such/folder/cache.json", None),
        ("x" * 300, None),
        pytest.param("cache.json", allow_no_bytes_in_files, marks=posix),
    ],
    ids=["missing folder", "long name", "full_disk"],
)
def test_users_are_printed_even_if_the_cache_cannot_be_written(
    tenant, run, tmp_path, path, preexec_fn
):
    result = run(token_cache=path, preexec_fn=preexec_fn)
    assert result.status == 0
    assert json.loads(result.stdout) == tenant.graph.page()
    assert os.path.join(str(tmp_path), path) in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_in(tmp_path) == ["parameters.json"]


@posix
def test_saved_sign_in_survives_a_full_disk(run, run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    contents = cache.read_bytes()
    run(token_cache="cache.json", preexec_fn=allow_no_bytes_in_files)
    assert cache.read_bytes() == contents
    assert run_cached(password=None) == ["discovery", "token", "graph"]


@pytest.mark.py27
@pytest.mark.parametrize("above", [True, False], ids=["from above", "from its folder"])
def test_relative_path_is_relative_to_the_parameters_file(run, parameters, tmp_path, above):
    parameters(token_cache="cache.json")
    folder, path = tmp_path, "parameters.json"
    if above:
        folder, path = tmp_path.parent, tmp_path.name + "/parameters.json"
    users_of(run(path=path, cwd=str(folder)))
    assert files_in(tmp_path) == ["cache.json", "parameters.json"]


@pytest.mark.py27
@pytest.mark.parametrize("absolute", [True, False], ids=["absolute", "in the home folder"])
def test_cache_can_be_in_another_folder(run, tmp_path, absolute):
    home = tmp_path / "home"
    home.mkdir()
    path = str(home / "cache.json") if absolute else "~/cache.json"
    users_of(run(token_cache=path, env={"HOME": str(home), "USERPROFILE": str(home)}))
    assert files_in(home) == ["cache.json"]


def test_sign_in_is_saved_even_if_graph_refuses_the_request(tenant, run, cache):
    SCENARIOS["forbidden"](tenant)
    assert run(token_cache="cache.json").stderr.startswith(CALL_FAILED)
    assert json.loads(cache.read_text())["RefreshToken"]


def test_token_that_is_renewed_during_a_listing_is_saved(tenant, run, cache):
    SCENARIOS["token-revoked"](tenant)
    assert user_numbers(run(token_cache="cache.json")) == list(range(1, 501))
    (saved,) = json.loads(cache.read_text())["AccessToken"].values()
    assert tenant.requests[-1][1].headers["Authorization"] == "Bearer " + saved["secret"]


def test_eight_runs_at_once_share_the_cache(tenant, start, parameters, cache, tmp_path):
    path = parameters(token_cache="cache.json")
    runs = [start(path=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(8)]
    for process in runs:
        stdout, stderr = process.communicate()
        assert process.returncode == 0
        # On Windows, a file that another run is reading can't be replaced.
        assert stderr == b"" or os.name == "nt"
        assert json.loads(stdout) == tenant.graph.page()
    assert files_in(tmp_path) == ["cache.json", "parameters.json"]
    assert json.loads(cache.read_text())["RefreshToken"]
