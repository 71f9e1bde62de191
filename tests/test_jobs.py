"""The README's programs and job files, exactly as it prints them."""

import csv
import json
import os
import shutil
import subprocess

import pytest
import readme
from helpers import (
    GRAPH,
    LOGIN,
    SIGN_IN_FAILED,
    USERS,
    decode,
    posix,
    result_of,
    run_on_terminal,
    users_of,
)
from readme import Clone, block
from tenant.messages import Answer, cut_off, json_answer
from tenant.scenarios import SCENARIOS

needs_flock = pytest.mark.skipif(
    not (shutil.which("flock") and shutil.which("timeout")), reason="needs flock and timeout"
)
OLD = "yesterday's list"


@pytest.fixture
def clone(tmp_path):
    """A clone with the settings of the README's example and all its programs."""
    if os.name != "posix":
        pytest.skip("needs POSIX")
    clone = Clone(tmp_path / "clone")
    clone.configure(**readme.settings("example"))
    clone.save("users_to_csv.py", "device_code.py", "app_only.py")
    return clone


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


def run_job(job, tenant, command="./nightly.sh"):
    """Run the job. Return its exit status and what it prints."""
    status, stdout, stderr = job.run(command, tenant)
    return status, stdout + stderr


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
        result = clone.run("set +e\n" + block("linux-run-job"), tenant)
        assert tenant.grants() == ["password"]
    # The block shows a run that works, and then one that fails and keeps the lists.
    assert result.stdout == "Exit status: 0\nExit status: 1\n"
    assert result.stderr.startswith(SIGN_IN_FAILED)
    assert_new_lists(clone)
    for name in ("users.json", "users.csv", "token_cache.json"):
        assert (clone.folder / name).stat().st_mode & 0o777 == 0o600


FAILURES = {  # What goes wrong, a line of shell before the job, and the job's exit status.
    "Graph refuses": (SCENARIOS["forbidden"], "", 1),
    "second step": (None, "sed -i s/department/departmnt/ users_to_csv.py", 1),
    # Files can't grow, and the signal that would end the programs is ignored.
    "full_disk": (None, "trap '' XFSZ; ulimit -f 0", 1),
    "hang": (
        lambda tenant: tenant.server.silent_hosts.add(GRAPH),
        "sed -i 's/timeout 1h/timeout 1/' nightly.sh",
        124,
    ),
}


@needs_flock
@pytest.mark.parametrize("change, before, status", FAILURES.values(), ids=FAILURES)
def test_failed_job_keeps_the_lists(job, change, before, status):
    with job.tenant() as tenant:
        if change:
            change(tenant)
        assert run_job(job, tenant, before + "\n./nightly.sh")[0] == status
    assert_old_lists(job.folder)


@needs_flock
@pytest.mark.parametrize("name", ["users.csv", "users.json"], ids=["first", "second"])
def test_failed_rename_is_reported(job, name):
    (job.folder / name).unlink()
    (job.folder / name / (name + ".new")).mkdir(parents=True)
    with job.tenant() as tenant:
        status, printed = run_job(job, tenant)
    assert (status, name in printed) == (1, True)
    assert name == "users.json" or (job.folder / "users.json").read_text() == OLD


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
def test_job_finds_its_folder_even_if_cdpath_is_set(job):
    elsewhere = job.folder / "elsewhere" / job.folder.name
    elsewhere.mkdir(parents=True)
    command = "cd .. && CDPATH={} {}/nightly.sh".format(elsewhere.parent, job.folder.name)
    with job.tenant() as tenant:
        assert run_job(job, tenant, command) == (0, "")
    assert_new_lists(job)


@posix
def test_watch_command_prints_lists_that_are_old_or_missing(clone):
    write_old_lists(clone.folder)
    assert clone.run(block("linux-watch")).stdout == ""
    (clone.folder / "users.json").unlink()
    os.utime(str(clone.folder / "users.csv"), (0, 0))
    printed = clone.run(block("linux-watch")).stdout
    assert printed == "users.json is old\nusers.csv is old\n"


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
    result = result_of([*git, "check-ignore", *names], cwd=str(clone.folder))
    assert result.stdout.split() == names


# users_to_csv.py


def to_csv(clone, users, column="displayName"):
    """Convert users to CSV with one column. Return the cells below the header, or the message."""
    program = clone.folder / "users_to_csv.py"
    columns = '["displayName", "userPrincipalName", "department"]'
    program.write_text(readme.changed(program.read_text(), columns, json.dumps([column])))
    (clone.folder / "in.json").write_text(json.dumps({"value": users}))
    result = clone.run("python users_to_csv.py in.json users.csv")
    assert "Traceback" not in result.stderr
    return [cell for (cell,) in csv_rows(clone)[1:]] if result.status == 0 else result.stderr


CELLS = [  # The column, the value, and the cell. Excel must not run the cell as a formula.
    ("displayName", "=HYPERLINK(1)", "'=HYPERLINK(1)"),
    ("displayName", "+1+1", "'+1+1"),
    ("displayName", "-1", "'-1"),
    ("displayName", "@SUM(1)", "'@SUM(1)"),
    ("displayName", "\t=1", "'\t=1"),
    ("displayName", "\ud83d Zoë", "? Zoë"),
    ("mobilePhone", "+44 20 7946 0000", "+44 20 7946 0000"),
    ("mobilePhone", "+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
    ("businessPhones", ["+1 (425) 555-0100", "+49/30/1"], "+1 (425) 555-0100; +49/30/1"),
]


@pytest.mark.parametrize("column, value, cell", CELLS, ids=[ascii(value) for _, value, _ in CELLS])
def test_formulas_get_an_apostrophe_and_phone_numbers_stay(clone, column, value, cell):
    assert to_csv(clone, [{column: value}, {}], column) == [cell, ""]


@pytest.mark.parametrize("user", [{}, {"department": None}])
def test_column_without_any_value_is_reported(clone, user):
    assert "department" in to_csv(clone, [user], "department")


def test_empty_list_becomes_just_a_header_row(clone):
    assert to_csv(clone, []) == []


# Device code


def run_block(name, clone, tenant, path="parameters.local.json", **env):
    """Run the README's command for a program. Return its Result. Nothing secret is printed."""
    result = clone.run(block(name).replace("parameters.local.json", path), tenant, **env)
    assert "Traceback" not in result.stderr
    for secret in tenant.directory.secrets:
        assert secret not in result.stdout + result.stderr
    return result


def test_unchanged_script_uses_the_device_code_sign_in(clone):
    clone.configure(password=None, token_cache="token_cache.json")
    with clone.tenant("mfa-required") as tenant:
        result = run_block("device-code", clone, tenant)
        assert (result.status, result.stderr) == (0, "")
        assert "Signed in as our_username@our_tenant.com" in result.stdout
        assert len(users_of(clone.run(block("run"), tenant))) == 5
        assert "password" not in tenant.grants()


def test_device_code_can_be_tried_on_the_local_tenant(clone):
    clone.configure(password=None, token_cache="token_cache.json")
    result = clone.run(block("device-code-local"))
    assert (result.status, "Signed in as" in result.stdout, result.stderr) == (0, True, "")


REFUSED = {  # The scenario, "token_cache", and a word in the message.
    "refused by Entra": ("conditional-access", "token_cache.json", "AADSTS53003"),
    "no device code": ("not-public", "token_cache.json", "AADSTS7000218"),
    "no network": ("no-network", "token_cache.json", SIGN_IN_FAILED),
    "another account": ("alternate-login", "token_cache.json", "zoe.bronte@our_tenant.com"),
    "cannot be saved": ("mfa-required", "no/such/folder/cache.json", "no/such/folder"),
}


@pytest.mark.parametrize("scenario, token_cache, word", REFUSED.values(), ids=REFUSED)
def test_device_code_sign_in_that_is_not_saved_is_a_failure(clone, scenario, token_cache, word):
    clone.configure(password=None, token_cache=token_cache)
    with clone.tenant(scenario) as tenant:
        status, stdout, stderr = run_block("device-code", clone, tenant)
    assert (status, "Signed in as" in stdout, word in stderr) == (1, False, True)
    assert not (clone.folder / "token_cache.json").exists()


@pytest.mark.parametrize(
    "path", ["", "missing.json", "README.md", "parameters.json", "parameters.local.json"]
)
def test_device_code_program_exits_with_2_if_the_settings_are_unusable(clone, path):
    # The shipped file has no token_cache. In the other one, it names a file that isn't a cache.
    clone.configure(password=None, token_cache="parameters.json")
    with clone.tenant() as tenant:
        status, stdout, stderr = run_block("device-code", clone, tenant, path)
        assert (status, stdout, tenant.requests) == (2, "", [])
    assert path in stderr


# App-only


@pytest.fixture
def app_clone(clone):
    """A clone with a certificate, and settings that name a tenant and all its users."""
    if not shutil.which("openssl"):
        pytest.skip("needs openssl")
    assert clone.run(block("app-only-certificate")).status == 0
    assert (clone.folder / "app_only.pfx").stat().st_mode & 0o777 == 0o600
    assert not (clone.folder / "app_only.key").exists()
    clone.configure(endpoint=USERS)
    return clone


@pytest.fixture
def app_tenant(app_clone):
    """A running local tenant whose app has the certificate. Everything works."""
    tenant = app_clone.tenant()
    tenant.directory.certificate = (app_clone.folder / "app_only.cer").read_bytes()
    with tenant:
        yield tenant


def app_only_error(clone, tenant, status=1, **env):
    """Run app_only.py, which fails. Return its error message."""
    result = run_block("app-only", clone, tenant, **env)
    assert (result.status, result.stdout) == (status, "")
    return result.stderr


def test_app_can_be_tried_on_the_local_tenant(app_clone):
    assert len(users_of(app_clone.run(block("app-only-local")))) == 5


@needs_flock
def test_job_with_its_one_change_makes_the_same_lists_as_before(app_clone, app_tenant):
    app_clone.configure(**readme.settings("example"))
    app_clone.run(block("linux-job"))
    assert run_job(app_clone, app_tenant) == (0, "")
    before = app_clone.users(), csv_rows(app_clone)
    job = app_clone.folder / "nightly.sh"
    job.write_text(readme.changed(job.read_text(), "username_password_sample.py", "app_only.py"))
    write_old_lists(app_clone.folder)
    assert run_job(app_clone, app_tenant) == (0, "")
    assert (app_clone.users(), csv_rows(app_clone)) == before
    assert app_tenant.grants() == ["password", "client_credentials"]


def linked(link):
    """Return a page with a link to the next page."""
    return json_answer({"value": [1], "@odata.nextLink": link})


# The sample's own tests have more cases. These show that the app uses the sample's listing.
GRAPH_ANSWERS = {  # Graph's answer, and a word in the message.
    "link to another host": (linked("https://sts.example.com/v1.0/users"), "another host"),
    "link over http": (linked("http://graph.microsoft.com/v1.0/users"), "another host"),
    "link that repeats": (linked(USERS), "repeats"),
    "403": (json_answer({"error": {"code": "Authorization_RequestDenied"}}, 403), "RequestDenied"),
}


@pytest.mark.parametrize("answer, word", GRAPH_ANSWERS.values(), ids=GRAPH_ANSWERS)
def test_app_refuses_what_the_sample_refuses(app_clone, app_tenant, answer, word):
    app_tenant.replace("graph", answer)
    assert word in app_only_error(app_clone, app_tenant)
    assert app_tenant.steps().count("graph") == 1
    assert set(app_tenant.server.connections) == {LOGIN + ":443", GRAPH + ":443"}


def test_app_retries_a_page_that_is_cut_off(app_clone, app_tenant):
    page = json_answer(app_tenant.graph.page())
    app_tenant.replace("graph", cut_off(page), then_happy=True)
    assert len(users_of(run_block("app-only", app_clone, app_tenant))) == 5


def test_app_replaces_a_token_that_is_revoked_midway(app_clone, app_tenant):
    SCENARIOS["token-revoked"](app_tenant)
    assert len(users_of(run_block("app-only", app_clone, app_tenant))) == 500
    assert app_tenant.grants() == ["client_credentials"] * 2


def test_app_reports_a_renewal_that_fails_as_a_failed_sign_in(app_clone, app_tenant):
    SCENARIOS["token-revoked"](app_tenant)
    app_tenant.replace("token", app_tenant.entra.on_token, Answer(503))
    assert app_only_error(app_clone, app_tenant).startswith(SIGN_IN_FAILED)


def test_app_reports_a_closed_stdout(app_clone, app_tenant):
    result = app_clone.run(block("app-only").strip() + " >&-", app_tenant)
    assert (result.status, "stdout" in result.stderr) == (1, True)


@pytest.mark.parametrize("tenant_name", ["organizations", "common", ""])
def test_app_needs_a_tenant_in_authority(app_clone, app_tenant, tenant_name):
    app_clone.configure(authority="https://login.microsoftonline.com/" + tenant_name)
    message = app_only_error(app_clone, app_tenant, status=2)
    assert ("authority" in message, message.count("\n"), app_tenant.requests) == (True, 1, [])


def test_unusable_certificate_is_reported(app_clone, app_tenant):
    message = app_only_error(app_clone, app_tenant, PFX_PASSPHRASE="wrong")
    assert ("app_only.pfx" in message, message.count("\n")) == (True, 1)
    app_tenant.directory.certificate = None  # Entra doesn't know it.
    assert "AADSTS700027" in app_only_error(app_clone, app_tenant)
    (app_clone.folder / "app_only.pfx").unlink()
    message = app_only_error(app_clone, app_tenant, status=2)
    assert ("app_only.pfx" in message, message.count("\n")) == (True, 1)


# Windows


@pytest.mark.skipif(not shutil.which("powershell"), reason="needs Windows PowerShell")
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
