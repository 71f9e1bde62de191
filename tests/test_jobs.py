"""The README's programs and job files, exactly as it prints them."""

import csv
import json
import os
import shutil
import subprocess
import sys

import pytest
import readme
from helpers import GRAPH, SIGN_IN_FAILED, decode, posix, run_on_terminal
from readme import Clone, block
from tenant.messages import Answer, cut_off, json_answer

needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
needs_flock = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("timeout")), reason="needs flock and timeout"
)
needs_powershell = pytest.mark.skipif(
    not shutil.which("powershell"), reason="needs Windows PowerShell"
)
OLD = "yesterday's list"
ROWS = 4  # The header, and the three users that the README's example selects.


@pytest.fixture
def clone(tmp_path):
    """A clone with the settings of the README's example and all its programs."""
    if os.name != "posix":
        pytest.skip("needs POSIX")
    clone = Clone(tmp_path / "clone")
    clone.configure(**readme.settings("example"))
    clone.save("users_to_csv.py", "device_code.py", "app_only.py")
    return clone


def users_in(done):
    """Return the users that a successful program has printed."""
    assert (done.returncode, decode(done.stderr)) == (0, "")
    return json.loads(done.stdout)["value"]


# The nightly job


@pytest.fixture
def job(clone):
    """A clone with nightly.sh and yesterday's lists."""
    clone.run(block("linux-job"))
    write_old_lists(clone.folder)
    return clone


def write_old_lists(folder):
    """Write yesterday's lists."""
    for name in ("users.json", "users.csv"):
        (folder / name).write_text(OLD)


def run_job(job, tenant, before="", command="./nightly.sh"):
    """Run the job, after a line of shell. Return its exit status and what it prints."""
    done = subprocess.run(
        ["bash", "-c", before + "\n" + command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        **job.options(tenant),
    )
    return done.returncode, decode(done.stdout)


def assert_old_lists(folder):
    """Check that both lists are yesterday's."""
    lists = [(folder / name).read_text(encoding="utf-8") for name in ("users.json", "users.csv")]
    assert lists == [OLD, OLD]


def csv_rows(clone):
    """Return the rows of users.csv."""
    with open(str(clone.folder / "users.csv"), encoding="utf-8-sig", newline="") as csv_file:
        return list(csv.reader(csv_file))


def assert_new_lists(clone):
    """Check that both lists are complete and have the same users."""
    names = [user["displayName"] for user in clone.users()]
    assert names == ["Zoë Brontë", "Adebayo Okonkwo", "美咲 田中"]
    assert [row[0] for row in csv_rows(clone)] == ["displayName", *names]


@needs_flock
def test_following_the_guide_from_a_clone_creates_private_lists(clone):
    clone.run(block("linux-install"))
    assert clone.parameters.stat().st_mode & 0o777 == 0o600
    clone.configure(
        password=None, **readme.settings("example"), **readme.settings("linux-token-cache")
    )
    status, screen = run_on_terminal(
        clone.command(block("linux-check")), "Password for", b"anything\n", **clone.options()
    )
    assert (status, "Zoë Brontë" in screen) == (0, True)
    with clone.tenant() as tenant:
        status, _ = run_on_terminal(
            clone.command(block("linux-sign-in")),
            "Password for",
            b"typed password\n",
            **clone.options(tenant),
        )
        assert status == 0
        clone.run(block("linux-job"))
        done = clone.run(block("linux-run-job").splitlines()[0], tenant)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert tenant.grants() == ["password"]
    assert_new_lists(clone)
    for name in ("users.json", "users.csv", "token_cache.json"):
        assert (clone.folder / name).stat().st_mode & 0o777 == 0o600


@needs_flock
@pytest.mark.parametrize("scenario", ["forbidden", "wrong-password"])
def test_failed_run_keeps_the_lists(job, scenario):
    with job.tenant(scenario) as tenant:
        status, printed = run_job(job, tenant)
    assert (status, printed.startswith(("Failed to call", SIGN_IN_FAILED))) == (1, True)
    assert_old_lists(job.folder)


@needs_flock
def test_failed_second_step_keeps_the_lists(job):
    program = job.folder / "users_to_csv.py"
    program.write_text(readme.changed(program.read_text(), '"department"]', '"departmnt"]'))
    with job.tenant() as tenant:
        status, printed = run_job(job, tenant)
    assert (status, "departmnt" in printed) == (1, True)
    assert_old_lists(job.folder)


@needs_flock
def test_lists_survive_a_full_disk(job):
    with job.tenant() as tenant:
        # Files can't grow, and the signal that would end the programs is ignored.
        status, _ = run_job(job, tenant, "trap '' XFSZ; ulimit -f 0")
    assert status != 0
    assert_old_lists(job.folder)


@needs_flock
def test_failed_second_rename_is_reported(job):
    (job.folder / "users.json").unlink()
    (job.folder / "users.json" / "users.json.new").mkdir(parents=True)
    with job.tenant() as tenant:
        status, printed = run_job(job, tenant)
    assert (status, "users.json" in printed) == (1, True)


@needs_flock
def test_failed_first_rename_keeps_the_lists(job):
    (job.folder / "users.csv").unlink()
    (job.folder / "users.csv" / "users.csv.new").mkdir(parents=True)
    with job.tenant() as tenant:
        assert run_job(job, tenant)[0] == 1
    assert (job.folder / "users.json").read_text() == OLD


@needs_flock
def test_second_run_at_the_same_time_is_refused(job):
    with job.tenant() as tenant:
        tenant.delay = 0.5
        first = subprocess.Popen(["./nightly.sh"], **job.options(tenant))
        while not tenant.requests:
            assert first.poll() is None
        assert run_job(job, tenant) == (1, "nightly.sh is still running.\n")
        assert_old_lists(job.folder)
        assert first.wait(60) == 0
    assert_new_lists(job)


@needs_flock
def test_lock_is_released_when_the_run_that_holds_it_ends(job):
    with job.tenant() as tenant:
        assert run_job(job, tenant, "(exec 9> nightly.lock; flock 9; kill -9 $BASHPID)")[0] == 0
    assert_new_lists(job)


@needs_flock
def test_run_that_hangs_is_stopped(job):
    script = job.folder / "nightly.sh"
    script.write_text(readme.changed(script.read_text(), "timeout 1h", "timeout 1"))
    with job.tenant() as tenant:
        tenant.server.silent_hosts.add(GRAPH)
        assert run_job(job, tenant)[0] == 124
    assert_old_lists(job.folder)


@needs_flock
def test_job_finds_its_folder_even_if_cdpath_is_set(job):
    elsewhere = job.folder / "elsewhere" / job.folder.name
    elsewhere.mkdir(parents=True)
    command = "cd .. && CDPATH={} {}/nightly.sh".format(elsewhere.parent, job.folder.name)
    with job.tenant() as tenant:
        assert run_job(job, tenant, command=command) == (0, "")
    assert_new_lists(job)


@needs_flock
def test_readme_shows_a_run_that_works_and_one_that_fails(job):
    _, works, *fails = block("linux-run-job").splitlines()
    with job.tenant() as tenant:
        assert run_job(job, tenant, command="./nightly.sh; " + works) == (0, "Exit status: 0\n")
    write_old_lists(job.folder)
    done = job.run("set +e\n" + "\n".join(fails))
    assert decode(done.stdout) == "Exit status: 1\n"
    assert decode(done.stderr).startswith(SIGN_IN_FAILED)
    assert_old_lists(job.folder)


@posix
def test_watch_command_prints_lists_that_are_old_or_missing(clone):
    for name in ("users.json", "users.csv"):
        assert name in decode(clone.run(block("linux-watch")).stdout)
    write_old_lists(clone.folder)
    assert clone.run(block("linux-watch")).stdout == b""
    os.utime(str(clone.folder / "users.csv"), (0, 0))
    assert decode(clone.run(block("linux-watch")).stdout) == "users.csv is old\n"


@posix
def test_git_ignores_the_files_that_the_readme_creates(clone):
    git = ["git", "-c", "core.excludesFile="]
    subprocess.run([*git, "init", "-q"], cwd=str(clone.folder), check=True)
    names = """
        parameters.local.json token_cache.json data/token_cache.json users.json users.json.new
        users.csv users.csv.new users.err nightly.sh nightly.cmd nightly.lock users_to_csv.py
        device_code.py app_only.py app_only.key app_only.cer app_only.pfx proxy-ca.pem .venv
    """.split()
    assert [name for name in names if name not in readme.TEXT] == []
    done = subprocess.run(
        [*git, "check-ignore", *names], cwd=str(clone.folder), capture_output=True, text=True
    )
    assert done.stdout.split() == names


# users_to_csv.py


@pytest.fixture
def to_csv(clone):
    """Return a function that converts users to CSV. It returns the rows, or the error message."""

    def to_csv(users, columns=None):
        program = clone.folder / "users_to_csv.py"
        if columns:
            old = '["displayName", "userPrincipalName", "department"]'
            program.write_text(readme.changed(program.read_text(), old, json.dumps(columns)))
        (clone.folder / "in.json").write_text(json.dumps({"value": users}))
        command = [sys.executable, program.name, "in.json", "users.csv"]
        done = subprocess.run(command, cwd=str(clone.folder), capture_output=True)
        stderr = decode(done.stderr)
        assert "Traceback" not in stderr
        return csv_rows(clone)[1:] if done.returncode == 0 else stderr

    return to_csv


def person(**changes):
    """Return a user with a value for each column of the README's example."""
    user = {"displayName": "Zoë", "userPrincipalName": "zoe@example.com", "department": "IT"}
    return dict(user, **changes)


@pytest.mark.parametrize("start", ["=HYPERLINK(1)", "+1+1", "-1", "@SUM(1)", "\t=1"])
def test_text_that_excel_would_run_starts_with_an_apostrophe(to_csv, start):
    assert to_csv([person(displayName=start)])[0][0] == "'" + start


def test_phone_number_keeps_its_plus_sign(to_csv):
    columns = ["mobilePhone", "businessPhones"]
    users = [
        {"mobilePhone": "+44 20 7946 0000", "businessPhones": ["+1 (425) 555-0100", "+49/30/1"]},
        {"mobilePhone": "+cmd|' /C calc'!A0", "businessPhones": []},
    ]
    assert to_csv(users, columns) == [
        ["+44 20 7946 0000", "+1 (425) 555-0100; +49/30/1"],
        ["'+cmd|' /C calc'!A0", ""],
    ]


def test_unpaired_surrogate_does_not_end_the_program(to_csv):
    assert to_csv([person(displayName="\ud83d Zoë")])[0][0] == "? Zoë"


@pytest.mark.parametrize("user", [{"displayName": "Zoë"}, person(department=None)])
def test_column_without_any_value_is_reported(to_csv, user):
    user = dict(user, userPrincipalName="zoe@example.com")
    assert "department" in to_csv([user])


def test_empty_list_becomes_just_a_header_row(to_csv):
    assert to_csv([]) == []


# Device code


@pytest.fixture
def device_clone(clone):
    """A clone whose settings have a token cache and no password."""
    clone.configure(password=None, token_cache="token_cache.json")
    return clone


def device_code(clone, tenant, path="parameters.local.json"):
    """Run device_code.py. Return its exit status, stdout, and stderr."""
    done = clone.run(block("device-code").replace("parameters.local.json", path), tenant)
    assert "Traceback" not in decode(done.stderr)
    return done.returncode, decode(done.stdout), decode(done.stderr)


def test_unchanged_script_uses_the_device_code_sign_in(device_clone):
    with device_clone.tenant("mfa-required") as tenant:
        status, stdout, stderr = device_code(device_clone, tenant)
        assert (status, stderr) == (0, "")
        assert "Signed in as our_username@our_tenant.com" in stdout
        assert len(users_in(device_clone.run(block("run"), tenant))) == 5
        assert "password" not in tenant.grants()


def test_device_code_can_be_tried_on_the_local_tenant(device_clone):
    done = device_clone.run(block("device-code-local"))
    assert (done.returncode, decode(done.stderr)) == (0, "")
    assert "Signed in as" in decode(done.stdout)


def test_device_code_sign_in_that_cannot_be_saved_is_a_failure(device_clone):
    device_clone.configure(password=None, token_cache="no/such/folder/cache.json")
    with device_clone.tenant() as tenant:
        status, stdout, stderr = device_code(device_clone, tenant)
    assert (status, "Signed in as" in stdout, stderr.count("\n")) == (1, False, 1)
    assert "no/such/folder" in stderr


def test_device_code_sign_in_with_another_account_is_not_saved(device_clone):
    with device_clone.tenant("alternate-login") as tenant:
        status, stdout, stderr = device_code(device_clone, tenant)
    assert (status, "Signed in as" in stdout, stderr.count("\n")) == (1, False, 1)
    assert "zoe.bronte@our_tenant.com" in stderr
    assert not (device_clone.folder / "token_cache.json").exists()


@pytest.mark.parametrize("scenario", ["conditional-access", "not-public", "no-network"])
def test_refused_device_code_is_reported(device_clone, scenario):
    with device_clone.tenant(scenario) as tenant:
        status, stdout, stderr = device_code(device_clone, tenant)
    assert (status, "Signed in as" in stdout) == (1, False)
    assert stderr.startswith(SIGN_IN_FAILED)


@pytest.mark.parametrize("path", ["", "missing.json", "README.md", "parameters.json"])
def test_device_code_program_exits_with_2_if_the_settings_are_unusable(device_clone, path):
    with device_clone.tenant() as tenant:
        status, stdout, stderr = device_code(device_clone, tenant, path)
        assert (status, stdout, tenant.requests) == (2, "", [])
    assert path in stderr


def test_device_code_program_does_not_replace_a_file_that_is_not_a_token_cache(device_clone):
    device_clone.configure(password=None, token_cache="parameters.json")
    with device_clone.tenant() as tenant:
        status, _, stderr = device_code(device_clone, tenant)
    assert (status, "not a token cache" in stderr) == (2, True)


# App-only


@pytest.fixture
def app_clone(clone):
    """A clone with a certificate."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    assert clone.run(block("app-only-certificate")).returncode == 0
    assert (clone.folder / "app_only.pfx").stat().st_mode & 0o777 == 0o600
    assert not (clone.folder / "app_only.key").exists()
    return clone


@pytest.fixture
def app_tenant(app_clone):
    """A running local tenant whose app has the certificate. Everything works."""
    tenant = app_clone.tenant()
    tenant.directory.certificate = (app_clone.folder / "app_only.cer").read_bytes()
    with tenant:
        yield tenant


def app_only(clone, tenant, **env):
    """Run app_only.py, and return the completed process. Nothing secret is printed."""
    done = clone.run(block("app-only"), tenant, **env)
    assert b"Traceback" not in done.stderr
    for secret in tenant.directory.secrets:
        assert secret.encode() not in done.stdout + done.stderr
    return done


def app_only_error(clone, tenant, status=1, **env):
    """Run app_only.py, which fails. Return its error message."""
    done = app_only(clone, tenant, **env)
    assert (done.returncode, done.stdout) == (status, b"")
    return decode(done.stderr)


def test_app_can_be_tried_on_the_local_tenant(app_clone):
    app_clone.configure(
        authority="https://login.microsoftonline.com/our_tenant.com",
        **readme.settings("example"),
    )
    assert len(users_in(app_clone.run(block("app-only-local")))) == 3


def test_app_lists_the_same_users_as_a_password_sign_in(app_clone, app_tenant):
    app_tenant.directory.user_count = 2500
    by_password = users_in(app_clone.run(block("run"), app_tenant))
    assert users_in(app_only(app_clone, app_tenant)) == by_password
    assert app_tenant.grants() == ["password", "client_credentials"]


@needs_flock
def test_job_with_its_one_change_makes_the_same_lists_as_before(app_clone, app_tenant):
    app_clone.run(block("linux-job"))
    assert run_job(app_clone, app_tenant) == (0, "")
    before = app_clone.users(), csv_rows(app_clone)
    job = app_clone.folder / "nightly.sh"
    job.write_text(readme.changed(job.read_text(), "username_password_sample.py", "app_only.py"))
    write_old_lists(app_clone.folder)
    assert run_job(app_clone, app_tenant) == (0, "")
    assert (app_clone.users(), csv_rows(app_clone)) == before
    assert app_tenant.grants() == ["password", "client_credentials"]


@pytest.mark.parametrize(
    "link",
    ["https://sts.example.com/v1.0/users", "http://graph.microsoft.com/v1.0/users", ""],
    ids=["another host", "http", "empty"],
)
def test_app_does_not_send_its_token_elsewhere(app_clone, app_tenant, link):
    app_tenant.replace("graph", json_answer({"value": [1], "@odata.nextLink": link}))
    assert "another host" in app_only_error(app_clone, app_tenant)
    assert app_tenant.steps().count("graph") == 1
    assert set(app_tenant.server.connections) == {"login.microsoftonline.com:443", GRAPH + ":443"}


def test_app_notices_a_link_that_repeats(app_clone, app_tenant):
    page = app_tenant.graph.page()
    page["@odata.nextLink"] = "https://graph.microsoft.com/v1.0/users?$skiptoken=again"
    app_tenant.replace("graph", json_answer(page))
    assert "repeats" in app_only_error(app_clone, app_tenant)


def test_app_replaces_a_token_that_is_revoked_midway(app_clone, app_tenant):
    app_clone.configure(endpoint="https://graph.microsoft.com/v1.0/users")
    app_tenant.directory.user_count = 500

    def answer_then_revoke(request):
        answer = app_tenant.graph.on_graph(request)
        app_tenant.graph.revoke_access_tokens()
        return answer

    app_tenant.replace("graph", answer_then_revoke, then_happy=True)
    assert len(users_in(app_only(app_clone, app_tenant))) == 500
    assert app_tenant.grants() == ["client_credentials"] * 2


def test_app_reports_a_renewal_that_fails_as_a_failed_sign_in(app_clone, app_tenant):
    refusal = app_tenant.graph.error(401, "InvalidAuthenticationToken", "")
    app_tenant.replace("graph", refusal)
    unavailable = Answer(503, b"<html>Unavailable</html>")
    app_tenant.replace("token", app_tenant.entra.on_token, unavailable)
    assert app_only_error(app_clone, app_tenant).startswith(SIGN_IN_FAILED)


def test_app_retries_a_page_that_is_cut_off(app_clone, app_tenant):
    app_tenant.replace(
        "graph", lambda request: cut_off(app_tenant.graph.on_graph(request)), then_happy=True
    )
    assert len(users_in(app_only(app_clone, app_tenant))) == 3


def test_app_shows_why_graph_refuses_a_request(app_clone, app_tenant):
    refusal = app_tenant.graph.error(403, "Authorization_RequestDenied", "No.")
    app_tenant.replace("graph", refusal)
    assert "Authorization_RequestDenied" in app_only_error(app_clone, app_tenant)


def test_app_reports_a_closed_stdout(app_clone, app_tenant):
    done = app_clone.run("set +e\n" + block("app-only").strip() + " >&-", app_tenant)
    assert (done.returncode, "stdout" in decode(done.stderr)) == (1, True)


@pytest.mark.parametrize("tenant_name", ["organizations", "common", ""])
def test_app_needs_a_tenant_in_authority(app_clone, app_tenant, tenant_name):
    app_clone.configure(authority="https://login.microsoftonline.com/" + tenant_name)
    message = app_only_error(app_clone, app_tenant, status=2)
    assert ("authority" in message, message.count("\n"), app_tenant.requests) == (True, 1, [])


def test_missing_certificate_is_reported(app_clone, app_tenant):
    (app_clone.folder / "app_only.pfx").unlink()
    message = app_only_error(app_clone, app_tenant, status=2)
    assert ("app_only.pfx" in message, message.count("\n")) == (True, 1)


def test_wrong_passphrase_is_reported(app_clone, app_tenant):
    message = app_only_error(app_clone, app_tenant, PFX_PASSPHRASE="wrong")
    assert ("app_only.pfx" in message, message.count("\n")) == (True, 1)


def test_app_whose_certificate_entra_does_not_know_is_refused(app_clone, app_tenant):
    app_tenant.directory.certificate = None
    message = app_only_error(app_clone, app_tenant)
    assert message.startswith(SIGN_IN_FAILED)
    assert "AADSTS700027" in message


# Windows


@needs_powershell
def test_windows_job_replaces_the_lists_only_after_a_success(tmp_path):
    clone = Clone(tmp_path / "clone")
    clone.configure(**readme.settings("example"))
    clone.save("users_to_csv.py")
    data = clone.folder / "data"
    data.mkdir()
    write_old_lists(data)

    def run(name, tenant=None):
        text = block(name, "powershell")
        # Without these variables, the job wouldn't use the local tenant.
        text = text.replace("set HTTPS_PROXY=& set REQUESTS_CA_BUNDLE=& set PFX_PASSPHRASE=& ", "")
        text = '$env:PATH = "$PWD\\.venv\\Scripts;$env:PATH"\n' + text
        path = clone.folder / "block.ps1"
        path.write_bytes(text.encode("utf-8"))  # A pasted here-string has no carriage returns.
        command = ["powershell", "-ExecutionPolicy", "Bypass", "-File", str(path)]
        options = clone.options(tenant)
        return subprocess.run(command, capture_output=True, timeout=100, **options)

    run("windows-job")
    with clone.tenant("forbidden") as tenant:
        job = subprocess.run(["cmd", "/c", "nightly.cmd"], **clone.options(tenant))
    assert job.returncode == 1
    assert_old_lists(data)
    with clone.tenant() as tenant:
        tenant.delay = 0.5
        first = subprocess.Popen(["cmd", "/c", "nightly.cmd"], **clone.options(tenant))
        while not tenant.requests:
            assert first.poll() is None
        second = subprocess.run(["cmd", "/c", "nightly.cmd"], **clone.options(tenant))
        assert (second.returncode, first.wait(60)) == (1, 0)
    with clone.tenant() as tenant:
        done = run("windows-run-job", tenant)
    first, _, rest = decode(done.stdout).partition("Exit status: 1\n")
    assert first.startswith("Exit status: 0\n")
    assert rest.startswith(SIGN_IN_FAILED)
    assert len(clone.users("data/users.json")) == 3
    assert "Zoë Brontë" in (data / "users.csv").read_text(encoding="utf-8-sig")
