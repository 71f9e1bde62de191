"""The token cache file: saved sign-ins, who can read it, and files that can't be used."""

import json
import os
import shutil
import stat
import subprocess

import pytest
from helpers import (
    CALL_FAILED,
    COLD_RUN,
    SIGN_IN_FAILED,
    WARM_RUN,
    decode,
    expire_access_tokens,
    files_in,
    posix,
    read_terminal,
    user_numbers,
    users_of,
)
from tenant.messages import Answer
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
@pytest.mark.parametrize(
    "scenario, code", [("sign-in-ended", "AADSTS70043"), ("conditional-access", "AADSTS53003")]
)
def test_refused_saved_sign_in_is_reported_with_the_error_triple(
    tenant, run, run_cached, cache, scenario, code
):
    run_cached()
    expire_access_tokens(cache)
    SCENARIOS[scenario](tenant)
    result = run(token_cache="cache.json", password=None)
    reason, error, description, correlation_id = result.stderr.splitlines()
    assert result.status == 1
    assert reason.startswith(SIGN_IN_FAILED)
    assert "terminal" in reason
    assert error == "invalid_grant"
    assert code in description
    assert "Correlation ID: " + correlation_id in description
    assert tenant.grants() == ["password", "refresh_token"]


def test_outage_during_a_renewal_is_reported(tenant, run, run_cached, cache):
    run_cached()
    expire_access_tokens(cache)
    tenant.replace("token", Answer(503, b"<html>Service Unavailable</html>"))
    result = run(token_cache="cache.json", password=None)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert "503" in result.stderr


def add_account_without_tokens(cache):
    """Put an account with the same username and no tokens before the account in the cache."""
    contents = json.loads(cache.read_text())
    (key, account), *_ = contents["Account"].items()
    empty = dict(account, home_account_id="empty.tenant", local_account_id="empty")
    contents["Account"] = {
        key.replace(account["home_account_id"], "empty.tenant"): empty,
        key: account,
    }
    cache.write_text(json.dumps(contents))


@pytest.mark.py27
def test_second_account_with_the_username_is_used_if_the_first_has_no_tokens(run_cached, cache):
    run_cached()
    add_account_without_tokens(cache)
    assert "token" not in run_cached(password=None)


def test_second_account_with_the_username_is_used_if_the_first_is_refused(
    tenant, run_cached, cache
):
    run_cached()
    contents = json.loads(cache.read_text())
    for section in ("Account", "RefreshToken"):
        (key, entry), *_ = contents[section].items()
        refused = dict(entry, home_account_id="refused.tenant")
        if section == "RefreshToken":
            refused["secret"] = "unknown to Entra"
        refused_key = key.replace(entry["home_account_id"], "refused.tenant")
        contents[section] = {refused_key: refused, key: entry}
    cache.write_text(json.dumps(contents))
    run_cached(password=None)
    assert tenant.grants() == ["password", "refresh_token"]
    assert len(json.loads(cache.read_text())["Account"]) >= 1


def test_account_of_another_user_is_never_used(tenant, run, run_cached):
    run_cached()
    result = run(token_cache="cache.json", username="other@your_tenant.com", password=None)
    assert result.status == 1
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert tenant.steps().count("graph") == 1


def test_username_is_not_case_sensitive(run_cached):
    run_cached()
    assert run_cached(username="YOUR_USERNAME@your_tenant.COM", password=None) == WARM_RUN


@posix
def test_prompt_does_not_appear_if_a_saved_sign_in_works(run_cached, start):
    import pty

    run_cached()
    master, slave = pty.openpty()
    process = start(
        stdin=slave, stdout=subprocess.PIPE, stderr=slave, password=None, token_cache="cache.json"
    )
    assert process.stdout.read().startswith(b"{")
    assert process.wait() == 0
    os.close(slave)
    assert read_terminal(master) == ""


# Files that can't be used


@pytest.mark.py27
@pytest.mark.parametrize(
    "contents",
    [
        b'{"AccessToken": {"a": {"home',
        b"null",
        b'["AccessToken"]',
        b'{"auths": {"registry.example.com": {}}}',
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


@pytest.mark.py27
def test_parameters_file_is_not_mistaken_for_a_token_cache(tenant, run, parameters, tmp_path):
    path = parameters(token_cache="parameters.json")
    before = (tmp_path / "parameters.json").read_bytes()
    result = run(path=path)
    assert result.status == 2
    assert tenant.requests == []
    assert path in result.stderr
    assert (tmp_path / "parameters.json").read_bytes() == before


@pytest.mark.parametrize("contents", [b"", b"{}"])
def test_empty_file_can_be_used_as_a_cache(run_cached, cache, contents):
    cache.write_bytes(contents)
    assert run_cached() == COLD_RUN
    assert run_cached() == WARM_RUN


@pytest.mark.py27
def test_folder_instead_of_a_cache_file_is_reported(tenant, run, cache):
    cache.mkdir()
    result = run(token_cache="cache.json")
    assert result.status == 2
    assert tenant.requests == []
    assert str(cache) in result.stderr


# Saving


@posix
@pytest.mark.py27
@pytest.mark.parametrize("umask, before", [(0o000, None), (0o022, 0o666), (0o077, None)])
def test_only_the_owner_can_read_the_cache(start, cache, umask, before):
    if before:
        cache.write_text("{}")
        cache.chmod(before)
    process = start(
        token_cache="cache.json", stdout=subprocess.DEVNULL, preexec_fn=lambda: os.umask(umask)
    )
    assert process.wait() == 0
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
    assert all("O_EXCL" in line and ", 0600)" in line for line in created)


@pytest.mark.py27
def test_password_is_not_in_the_cache_file(tenant, run_cached, cache):
    tenant.directory.password = "correct horse battery staple"
    run_cached(password=tenant.directory.password)
    contents = cache.read_text()
    assert json.loads(contents)["RefreshToken"]
    assert tenant.directory.password not in contents


def test_unchanged_cache_is_not_written(run_cached, cache):
    run_cached()
    before = cache.stat()
    run_cached()
    after = cache.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.py27
def test_users_are_printed_even_if_the_cache_cannot_be_written(tenant, run, tmp_path):
    tenant.directory.user_count = 200
    result = run(token_cache="no/such/folder/cache.json")
    assert result.status == 0
    assert len(json.loads(result.stdout)["value"]) == 200
    assert os.path.join(str(tmp_path), "no/such/folder/cache.json") in result.stderr
    assert result.stderr.count("\n") == 1
    assert files_in(tmp_path) == ["parameters.json"]


@posix
def test_full_disk_leaves_no_temporary_file(start, cache, tmp_path):
    import resource

    def allow_no_bytes_in_files():
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    process = start(
        token_cache="cache.json",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=allow_no_bytes_in_files,
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0
    assert json.loads(stdout)["value"]
    assert str(cache) in decode(stderr)
    assert decode(stderr).count("\n") == 1
    assert files_in(tmp_path) == ["parameters.json"]


@pytest.mark.py27
def test_relative_path_is_relative_to_the_parameters_file(command, cache, tmp_path):
    argv, env = command(token_cache="cache.json")
    for folder, path in [
        (tmp_path.parent, tmp_path.name + "/parameters.json"),
        (tmp_path, "parameters.json"),
    ]:
        argv[-1] = path
        done = subprocess.run(argv, env=env, cwd=str(folder), capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert files_in(tmp_path) == ["cache.json", "parameters.json"]
        cache.unlink()


def test_absolute_path_is_used_unchanged(run, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    users_of(run(token_cache=str(folder / "cache.json")))
    assert files_in(folder) == ["cache.json"]


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
