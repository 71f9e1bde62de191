"""The command line and the settings: a problem ends the run with status 2, before any request."""

import json
import subprocess

import pytest
from helpers import SAMPLE_PYTHON, posix, sample_command, shipped_settings, users_of
from local_tenant import PARAMETERS

REQUIRED = ["authority", "client_id", "username", "scope", "endpoint"]


@pytest.fixture
def problem(tenant, run):
    """Return a function that runs the sample with unusable settings and returns its message."""

    def problem(**more):
        result = run(**more)
        assert result.status == 2
        assert tenant.requests == []
        assert result.stderr.count("\n") == 1
        return result.stderr

    return problem


@pytest.mark.py27
@pytest.mark.parametrize("arguments", [[], ["a.json", "b.json"], ["--unknown", "a.json"]])
def test_wrong_command_line_prints_the_usage(arguments):
    done = subprocess.run(sample_command(*arguments), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: username_password_sample.py" in done.stderr


@pytest.mark.py27
def test_help_explains_every_setting_and_exit_status():
    done = subprocess.run(sample_command("--help"), capture_output=True, text=True)
    assert done.returncode == 0
    for word in [*REQUIRED, "password", "token_cache", "0 ", "1 ", "2 ", "130 "]:
        assert "\n    {}".format(word) in done.stdout
    assert "--verbose" in done.stdout


@pytest.mark.py27
def test_missing_file_is_reported_with_its_path(problem, tmp_path):
    path = str(tmp_path / "missing.json")
    assert path in problem(path=path)


@posix
def test_folder_instead_of_a_file_is_reported(problem, tmp_path):
    assert str(tmp_path) in problem(path=str(tmp_path))


@pytest.mark.py27
@pytest.mark.parametrize("contents", [b"null", b'"abc"', b'[{"authority": "a"}]'])
def test_json_that_is_not_an_object_is_reported(problem, parameters, contents):
    path = parameters(contents)
    message = problem(path=path)
    assert path in message
    assert "not a JSON object" in message


@pytest.mark.parametrize(
    "contents, place",
    [
        (b"", "line 1 column 1"),
        (b'{\n  "password": "a\\b\\c"\n}', "line 2 column "),
        (b'{\n  "authority": "a"\n  "client_id": "b"\n}', "line 3 column "),
    ],
)
def test_invalid_json_is_reported_with_line_and_column(problem, parameters, contents, place):
    path = parameters(contents)
    message = problem(path=path)
    assert path in message
    assert place in message


def test_file_that_is_not_unicode_is_reported(problem, parameters):
    path = parameters('{"username": "Zoë"}'.encode("latin-1"))
    message = problem(path=path)
    assert path in message
    assert "utf-8" in message


@pytest.mark.py27
@pytest.mark.parametrize("empty", ["", None, []])
def test_all_missing_or_empty_settings_are_reported_at_once(problem, parameters, empty):
    settings = dict(shipped_settings(), **dict.fromkeys(REQUIRED, empty))
    message = problem(path=parameters(json.dumps(settings).encode()))
    assert all('"{}" is missing'.format(key) in message for key in REQUIRED)


def test_settings_that_are_not_in_the_file_are_reported_as_missing(problem, parameters):
    message = problem(path=parameters(b"{}"))
    assert all('"{}" is missing'.format(key) in message for key in REQUIRED)


@pytest.mark.py27
def test_problems_of_every_kind_are_reported_at_once(problem):
    message = problem(
        authority="http://login.microsoftonline.com/organizations",
        client_id="",
        username=["a"],
        scope="User.ReadBasic.All",
        endpoint="graph.microsoft.com/v1.0/users",
        password=True,
        token_cache={},
    )
    for key in [*REQUIRED, "password", "token_cache"]:
        assert message.count('"{}"'.format(key)) == 1


@pytest.mark.parametrize("value", [0, False, ["a"]])
def test_values_that_are_not_strings_are_reported(problem, value):
    keys = ["authority", "client_id", "username", "endpoint", "password", "token_cache"]
    message = problem(**dict.fromkeys(keys, value))
    assert all('"{}" must be a string'.format(key) in message for key in keys)


@pytest.mark.parametrize("value", ["User.ReadBasic.All", {"User.ReadBasic.All": True}])
def test_scope_that_is_not_a_list_is_reported(problem, value):
    assert '"scope" must be a list' in problem(scope=value)


@pytest.mark.parametrize("url", ["//a/b", "https:a", "http://a.example"])
def test_urls_without_https_are_reported(problem, url):
    message = problem(authority=url, endpoint=url)
    assert '"authority" must start with https://' in message
    assert '"endpoint" must start with https://' in message


@pytest.mark.py27
def test_other_keys_are_ignored(run):
    users_of(run(comment="moved here in 2014", proxies={}))


def test_urls_can_be_uppercase(run):
    endpoint = "HTTPS://GRAPH.microsoft.com/v1.0/users"
    authority = "HTTPS://LOGIN.microsoftonline.com/organizations"
    users_of(run(endpoint=endpoint, authority=authority))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_encodings_of_windows_editors_are_read(run, parameters, encoding):
    text = PARAMETERS.read_text(encoding="utf-8")
    users_of(run(path=parameters(text.encode(encoding))))


@posix
@pytest.mark.py27
def test_settings_can_come_from_standard_input(tenant):
    done = subprocess.run(
        sample_command("/dev/stdin"),
        input=PARAMETERS.read_bytes(),
        env=tenant.environment(),
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_shipped_file_has_six_settings_with_placeholders():
    assert shipped_settings() == {
        "authority": "https://login.microsoftonline.com/organizations",
        "client_id": "your_client_id",
        "username": "your_username@your_tenant.com",
        "password": "your_password",
        "scope": ["User.ReadBasic.All"],
        "endpoint": "https://graph.microsoft.com/v1.0/users",
    }


def test_waits_and_limits_have_their_documented_values(tmp_path):
    program = """
import username_password_sample as sample
print(sample.TIMEOUT, sample.RETRY_WAITS, sample.MAX_RETRY_AFTER, sample.MAX_CONTENT)
print(sorted(sample.TRANSIENT_STATUSES))
"""
    done = subprocess.run(
        [SAMPLE_PYTHON, "-W", "ignore", "-c", program],
        cwd=str(PARAMETERS.parent),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["30 (2, 4, 8) 300 1024", "[429, 500, 502, 503, 504]"]
