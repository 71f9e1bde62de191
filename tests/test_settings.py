"""The command line and the settings: a problem ends the run with status 2, before any request."""

import json
import subprocess

import pytest
from helpers import posix, sample, sample_command, shipped_settings, users_of
from project import PARAMETERS

REQUIRED = ["authority", "client_id", "username", "scope", "endpoint"]
STRINGS = ["authority", "client_id", "username", "endpoint", "password", "token_cache"]


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
@pytest.mark.parametrize(
    "arguments", [[], ["a.json", "b.json"], ["--unknown", "a.json"]], ids=" ".join
)
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
    assert "JSON" in message


@pytest.mark.parametrize(
    "contents, place",
    [
        (b"", "line 1 column 1"),
        (b'{\n  "password": "a\\b\\c"\n}', "line 2 column "),
        (b'{\n  "authority": "a"\n  "client_id": "b"\n}', "line 3 column "),
        ('{"username": "Zoë"}'.encode("latin-1"), "utf-8"),
    ],
    ids=["empty", "backslash", "missing comma", "not Unicode"],
)
def test_invalid_json_is_reported_with_the_position_of_the_error(
    problem, parameters, contents, place
):
    path = parameters(contents)
    message = problem(path=path)
    assert path in message
    assert place in message


@pytest.mark.py27
@pytest.mark.parametrize(
    "settings",
    [{}, *[dict(shipped_settings(), **dict.fromkeys(REQUIRED, v)) for v in ("", None, [])]],
    ids=["missing", "empty string", "null", "empty list"],
)
def test_all_missing_or_empty_settings_are_reported_together(problem, parameters, settings):
    message = problem(path=parameters(json.dumps(settings).encode()))
    assert all('"{}"'.format(key) in message for key in REQUIRED)


@pytest.mark.py27
def test_problems_of_every_kind_are_reported_together(problem):
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


@pytest.mark.parametrize("value", [0, False, ["a"]], ids=repr)
def test_values_that_are_not_strings_are_reported(problem, value):
    message = problem(**dict.fromkeys(STRINGS, value))
    assert all('"{}"'.format(key) in message for key in STRINGS)


@pytest.mark.parametrize(
    "value",
    ["User.ReadBasic.All", {"User.ReadBasic.All": True}, [1], ["User.Read", None]],
    ids=repr,
)
def test_scope_that_is_not_a_list_of_strings_is_reported(problem, value):
    assert '"scope"' in problem(scope=value)


@pytest.mark.parametrize("url", ["//a/b", "https:a", "http://a.example"])
def test_urls_without_https_are_reported(problem, url):
    message = problem(authority=url, endpoint=url)
    assert message.count("https://") == 2


@pytest.mark.py27
def test_other_keys_are_ignored(run):
    users_of(run(comment="moved here in 2014", proxies={}))


def test_urls_can_be_uppercase(run):
    endpoint = "HTTPS://GRAPH.microsoft.com/v1.0/users"
    authority = "HTTPS://LOGIN.microsoftonline.com/organizations"
    users_of(run(endpoint=endpoint, authority=authority))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_in_the_encodings_of_windows_editors_can_be_read(run, parameters, encoding):
    text = PARAMETERS.read_text(encoding="utf-8")
    users_of(run(path=parameters(text.encode(encoding))))


@posix
@pytest.mark.py27
def test_settings_can_come_from_standard_input(run):
    with PARAMETERS.open("rb") as settings:
        users_of(run(path="/dev/stdin", stdin=settings))


def test_shipped_file_has_six_settings_with_placeholders():
    assert shipped_settings() == {
        "authority": "https://login.microsoftonline.com/organizations",
        "client_id": "your_client_id",
        "username": "your_username@your_tenant.com",
        "password": "your_password",
        "scope": ["User.ReadBasic.All"],
        "endpoint": "https://graph.microsoft.com/v1.0/users",
    }


def test_waits_and_limits_have_their_documented_values():
    assert sample.TIMEOUT == (10, 30)
    assert sample.RETRY_WAITS == (2, 4, 8)
    assert sample.MAX_RETRY_AFTER == 300
    assert sample.MAX_CONTENT == 1024
    assert set(sample.TRANSIENT_STATUSES) == {429, 500, 502, 503, 504}
