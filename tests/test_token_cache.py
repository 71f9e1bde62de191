"""The token cache file: saved sign-ins, who can read it, and files that can't be used."""

import ctypes
import json
import os
import socket
import stat
import subprocess

import pytest
from helpers import (
    COLD_RUN,
    WARM_RUN,
    call_error,
    expire_access_tokens,
    files_in,
    linux,
    posix,
    settings_error,
    sign_in_error,
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
def test_second_run_needs_no_password_no_token_request_and_no_save(run_cached, cache):
    assert run_cached() == COLD_RUN
    before = cache.stat()
    assert run_cached(password=None) == WARM_RUN
    after = cache.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.py27
def test_without_the_setting_nothing_is_saved(run, tmp_path):
    users_of(run(token_cache=""))
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
    lines = sign_in_error(run(token_cache="cache.json", password=None)).splitlines()
    advice, error, description, correlation_id = lines
    assert ("terminal" in advice, error) == (True, "invalid_grant")
    assert "AADSTS53003" in description
    assert "Correlation ID: " + correlation_id in description
    assert tenant.grants() == ["password", "refresh_token"]


@pytest.mark.py27
def test_second_account_is_used_if_the_first_one_is_refused(tenant, run_cached, cache):
    run_cached()
    contents = json.loads(cache.read_text())
    for section in ("Account", "RefreshToken"):
        ((key, entry),) = contents[section].items()
        other = dict(entry, home_account_id="other.tenant", secret="unknown")
        contents[section] = {"other": other, key: entry}
    cache.write_text(json.dumps(contents))
    run_cached(password=None)
    assert tenant.grants() == ["password", "refresh_token"]


def test_account_of_another_user_is_never_used(tenant, run, run_cached):
    run_cached()
    sign_in_error(run(token_cache="cache.json", username="other@your_tenant.com", password=None))
    assert tenant.steps().count("graph") == 1


# Files that can't be used


def make_socket(name):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)


def make_device(name):
    try:
        os.mknod(name, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("needs the permission to make a device node")


UNUSABLE = {  # The contents of the file, or a function that makes something else.
    "incomplete": b'{"AccessToken": {"a": {"home',
    "null": b"null",
    "list": b'["AccessToken"]',
    "other JSON": b'{"auths": {"registry.example.com": {}}}',
    "list in a section": b'{"AccessToken": []}',
    "null in a section": b'{"AccessToken": {}, "RefreshToken": null}',
    "not text": b"\x80\x00\xff",
    "folder": os.mkdir,
}
if os.name == "posix":
    UNUSABLE.update({"FIFO": os.mkfifo, "socket": make_socket, "device": make_device})


@pytest.mark.py27
@pytest.mark.parametrize("kind", UNUSABLE)
def test_what_is_not_a_token_cache_is_reported_and_kept(
    tenant, run, cache, tmp_path, monkeypatch, kind
):
    monkeypatch.chdir(tmp_path)  # The path of a socket can't be long.
    is_file = isinstance(UNUSABLE[kind], bytes)
    if is_file:
        cache.write_bytes(UNUSABLE[kind])
    else:
        UNUSABLE[kind](cache.name)
    before = cache.stat()
    message = settings_error(run(token_cache="cache.json"), tenant)
    assert str(cache) in message
    assert ("delete" in message, '"token_cache"' in message) == (is_file, is_file)
    after = cache.stat()
    assert (after.st_mode, after.st_ino) == (before.st_mode, before.st_ino)
    assert not is_file or cache.read_bytes() == UNUSABLE[kind]


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
    message = settings_error(result, tenant)
    assert str(cache) in message
    assert "Permission denied" in message
    assert "delete" not in message


@linux
@pytest.mark.parametrize("name", ["Größe.json", "cache\0.json"], ids=["not ASCII", "NUL"])
def test_path_that_cannot_be_encoded_is_reported(run, tmp_path, name):
    c_locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    result = run(token_cache=name, env=c_locale)
    # Python 3.8 and 3.9 notice it only when the token cache is saved.
    assert result.status in (0, 2)
    assert result.stderr.count("\n") == 1
    assert files_in(tmp_path) == ["parameters.json"]


# Saving


@posix
@pytest.mark.py27
def test_only_the_owner_can_read_the_cache(run, cache):
    users_of(run(token_cache="cache.json", preexec_fn=lambda: os.umask(0)))
    assert stat.S_IMODE(cache.stat().st_mode) == 0o600


@posix
@pytest.mark.py27
def test_symbolic_link_stays_and_its_target_is_replaced(run, cache, tmp_path):
    target = tmp_path / "elsewhere" / "real.json"
    target.parent.mkdir()
    target.touch(0o666)  # An empty file can be used, too.
    cache.symlink_to("elsewhere/real.json")
    users_of(run(token_cache="cache.json"))
    assert cache.is_symlink()
    assert json.loads(target.read_text())["RefreshToken"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert files_in(target.parent) == ["real.json"]


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


@pytest.mark.py27
def test_users_are_printed_even_if_the_cache_cannot_be_written(tenant, run, tmp_path):
    result = run(token_cache="no/such/folder/cache.json")
    assert (result.status, json.loads(result.stdout)) == (0, tenant.graph.page())
    assert str(tmp_path / "no/such/folder/cache.json") in result.stderr
    assert result.stderr.count("\n") == 1


def allow_no_bytes_in_files():
    """In a new process, make each write to a file fail, as on a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@posix
@pytest.mark.py27
def test_saved_sign_in_survives_a_full_disk(tenant, run, run_cached, cache, tmp_path):
    run_cached()
    expire_access_tokens(cache)
    contents = cache.read_bytes()
    result = run(token_cache="cache.json", preexec_fn=allow_no_bytes_in_files)
    assert (result.status, json.loads(result.stdout)) == (0, tenant.graph.page())
    assert (str(cache) in result.stderr, result.stderr.count("\n")) == (True, 1)
    assert files_in(tmp_path) == ["cache.json", "parameters.json"]
    assert cache.read_bytes() == contents
    assert run_cached(password=None) == ["discovery", "token", "graph"]


@pytest.mark.py27
@pytest.mark.parametrize(
    "path", ["home/cache.json", "~/cache.json", "{}/home/cache.json"], ids=["relative", "~", "/"]
)
def test_cache_can_be_in_another_folder(run, parameters, tmp_path, path):
    home = tmp_path / "home"
    home.mkdir()
    parameters(token_cache=path.format(tmp_path))
    env = {"HOME": str(home), "USERPROFILE": str(home)}
    users_of(run(path="parameters.json", cwd=str(tmp_path), env=env))
    assert files_in(home) == ["cache.json"]


def test_sign_in_is_saved_even_if_graph_refuses_the_request(tenant, run, cache):
    SCENARIOS["forbidden"](tenant)
    call_error(run(token_cache="cache.json"))
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
        assert (process.returncode, json.loads(stdout)) == (0, tenant.graph.page())
        # On Windows, a file that another run is reading can't be replaced.
        assert stderr == b"" or os.name == "nt"
    assert files_in(tmp_path) == ["cache.json", "parameters.json"]
    assert json.loads(cache.read_text())["RefreshToken"]
