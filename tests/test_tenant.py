"""The local tenant's own command: whose tenant it is, what it runs, who is served."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import posix, read_terminal
from local_tenant import PARAMETERS, ROOT, SAMPLE
from tenant.scenarios import SCENARIOS

COMMAND = [sys.executable, str(ROOT / "tests" / "local_tenant.py")]
OWN = {
    "authority": "https://login.microsoftonline.com/contoso.example",
    "client_id": "an_app_of_our_own",
    "username": "jane@contoso.example",
    "password": "of our own",
    "scope": ["User.ReadBasic.All"],
    "endpoint": "https://graph.microsoft.com/v1.0/users",
}


def local_tenant(*arguments):
    """Run the command and return its status, stdout and stderr."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.fixture
def own(tmp_path):
    """Return a function that writes a parameters file of one's own, and gives its path."""

    def own(**changes):
        path = tmp_path / "mine.json"
        config = {key: value for key, value in dict(OWN, **changes).items() if value is not None}
        path.write_text(json.dumps(config))
        return str(path)

    return own


def names(stdout):
    """Return the principal names of the users printed."""
    return [user["userPrincipalName"] for user in json.loads(stdout)["value"]]


def test_without_arguments_it_runs_the_sample_as_it_is_shipped():
    status, stdout, stderr = local_tenant()
    assert (status, stderr) == (0, "")
    assert names(stdout)[0] == "your_username@your_tenant.com"


def test_it_is_the_tenant_of_ones_own_file(own):
    status, stdout, stderr = local_tenant("--parameters", own(), "--users", "2")
    assert (status, stderr) == (0, "")
    assert names(stdout) == ["jane@contoso.example", "user1@contoso.example"]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"scope": ["User.ReadBasic"]}, "AADSTS70011"),
        ({"scope": ["https://management.azure.com/.default"]}, "Invalid audience"),
        ({"scope": ["User.Read"]}, "Authorization_RequestDenied"),
        ({"endpoint": "https://graph.microsoft.com/v1.0/user"}, "BadRequest"),
        ({"endpoint": "https://graph.microsoft.com/v1.0/users?$top=1000"}, "between 1 and 999"),
        ({"endpoint": "https://graph.microsoft.com/v1.0/users?$top=all"}, "between 1 and 999"),
        ({"scope": "User.ReadBasic.All"}, '"scope" has the wrong type'),
    ],
)
def test_what_is_wrong_in_it_is_told_as_the_services_would(own, change, words):
    status, stdout, stderr = local_tenant("--parameters", own(**change))
    assert status and not stdout
    assert words in stderr


CHANGE_AND_RUN = """
import json, subprocess, sys
sample, path, change = sys.argv[1:]
config = dict(json.load(open(path)), **json.loads(change))
json.dump(config, open(path, "w"))
sys.exit(subprocess.call([sys.executable, sample, path]))
"""


@pytest.fixture
def changed(own):
    """Return a function that changes the file while its tenant lives, and runs the sample then."""

    def changed(change, **before):
        path = own(**before)
        job = [sys.executable, "-c", CHANGE_AND_RUN, str(SAMPLE), path, json.dumps(change)]
        return local_tenant("--parameters", path, *job)

    return changed


@pytest.mark.parametrize(
    "change, words",
    [
        ({"authority": OWN["authority"] + "x"}, "Unable to get authority configuration"),
        ({"client_id": "another"}, "AADSTS700016"),
        ({"username": "joe@contoso.example"}, "AADSTS50034"),
        ({"password": "another"}, "AADSTS50126"),
    ],
)
def test_a_value_that_changes_while_it_lives_is_refused(changed, change, words):
    status, stdout, stderr = changed(change)
    assert (status, stdout) == (1, "")
    assert words in stderr


def test_of_a_file_without_a_password_the_shipped_one_is_right(changed):
    shipped = json.loads(PARAMETERS.read_bytes())["password"]
    assert changed({"password": shipped}, password=None)[0] == 0
    assert changed({"password": OWN["password"]}, password=None)[0] == 1


@pytest.mark.parametrize("contents", ["", "[]", '{"authority": 1}'])
def test_of_a_broken_file_the_sample_says_what_is_wrong(tmp_path, contents):
    path = tmp_path / "mine.json"
    path.write_text(contents)
    status, stdout, stderr = local_tenant("--parameters", str(path))
    assert (status, stdout) == (2, "")
    assert "error: {}: ".format(path) in stderr


def test_with_user_read_all_everyone_is_shown_whole(own):
    for scope, jobs in [("User.ReadBasic.All", [None, None]), ("User.Read.All", ["Nurse", None])]:
        stdout = local_tenant("--parameters", own(scope=[scope]), "--users", "2")[1]
        users = json.loads(stdout)["value"]
        assert (users[0]["jobTitle"], bool(users[1]["officeLocation"])) == (jobs[0], bool(jobs[0]))


def test_a_sign_in_is_kept_from_tenant_to_tenant(own, tmp_path):
    assert local_tenant("--parameters", own(token_cache="kept.json"))[0] == 0
    path = own(token_cache="kept.json", password=None)
    assert local_tenant("--parameters", path)[0] == 0
    assert (tmp_path / "kept.json").exists()


@posix  # The curl of Windows takes its authorities from Windows alone.
@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_curl_gets_graphs_refusal_and_of_others_that_nobody_is_there():
    url = "https://graph.microsoft.com/v1.0/users"
    status, stdout, stderr = local_tenant("curl", "-sS", url)
    assert (status, stderr) == (0, "")
    assert json.loads(stdout)["error"]["code"] == "InvalidAuthenticationToken"
    status, stdout, stderr = local_tenant("curl", "-sS", "-i", "http://example.com/")
    assert stdout.startswith("HTTP/1.1 502 the local tenant does not stand for http://example.com")
    status, stdout, stderr = local_tenant("curl", "-sS", "https://example.com/")
    assert (status != 0, stdout) == (True, "")
    assert "502" in stderr


@pytest.mark.parametrize(
    "url, status, words",
    [
        ("https://graph.microsoft.com/v1.0/users", 401, "InvalidAuthenticationToken"),
        ("http://example.com/", 502, "does not stand for http://example.com"),
    ],
)
def test_urllib_is_served_too(url, status, words):
    code = "import sys, urllib.error, urllib.request\n"
    code += "try:\n    urllib.request.urlopen(sys.argv[1])\n"
    code += "except urllib.error.HTTPError as error:\n    print(error.code, error.read().decode())"
    assert local_tenant(sys.executable, "-c", code, url)[1].startswith(str(status))
    assert words in local_tenant(sys.executable, "-c", code, url)[1]


def test_the_scenarios_are_listed():
    status, stdout, stderr = local_tenant("--list")
    assert [line.split()[0] for line in stdout.splitlines()] == list(SCENARIOS)


def test_the_commands_status_is_its_own():
    assert local_tenant(sys.executable, "-c", "raise SystemExit(7)") == (7, "", "")
    status, stdout, stderr = local_tenant("no_such_command")
    assert (status, stdout, stderr.partition(": ")[0]) == (127, "", "no_such_command")


@posix
def test_in_a_shell_it_stays_the_same_and_says_how_to_leave(own):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    path = own(token_cache="kept.json")
    command = [*COMMAND, "--parameters", path, "sh"]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    run = "'{}' '{}' '{}' >/dev/null; echo status=$?\n".format(sys.executable, SAMPLE, path)
    os.write(master, (run + "exit 3\n").encode())
    screen = read_terminal(master)
    assert process.wait() == 3
    assert screen.count("Type exit to leave") == 1
    assert "status=0" in screen
