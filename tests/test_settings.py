"""The command line and the settings: a problem ends the run with status 2, before any request."""

import json

import pytest
from helpers import posix, result_of, sample_command, settings_error, shipped_settings, users_of
from project import PARAMETERS

REQUIRED = ["authority", "client_id", "username", "scope", "endpoint"]
STRINGS = ["authority", "client_id", "username", "endpoint", "password", "token_cache"]
URLS = ["authority", "endpoint"]


@pytest.mark.py27
@pytest.mark.parametrize(
    "arguments", [[], ["a.json", "b.json"], ["--unknown", "a.json"]], ids=" ".join
)
def test_wrong_command_line_prints_the_usage(arguments):
    result = result_of(sample_command(*arguments))
    assert (result.status, result.stdout) == (2, "")
    assert "usage: username_password_sample.py" in result.stderr


@pytest.mark.py27
def test_help_explains_every_setting_and_exit_status():
    result = result_of(sample_command("--help"))
    assert result.status == 0
    for word in [*REQUIRED, "password", "token_cache", "0 ", "1 ", "2 ", "130 "]:
        assert "\n    {}".format(word) in result.stdout
    assert "--verbose" in result.stdout


@pytest.mark.py27
@pytest.mark.parametrize("name", ["missing.json", pytest.param("", marks=posix)])
def test_file_that_cannot_be_read_is_reported_with_its_path(tenant, run, tmp_path, name):
    path = str(tmp_path / name)
    assert path in settings_error(run(path=path), tenant)


FILES = {  # The contents, and a word in the message.
    "empty": (b"", "line 1 column 1"),
    "backslash": (b'{\n  "password": "a\\b\\c"\n}', "line 2 column "),
    "missing comma": (b'{\n  "authority": "a"\n  "client_id": "b"\n}', "line 3 column "),
    "not Unicode": ('{"username": "Zoë"}'.encode("latin-1"), "utf-8"),
    "null": (b"null", "JSON object"),
    "list": (b'[{"authority": "a"}]', "JSON object"),
    "no settings": (b"{}", '"endpoint"'),
}


@pytest.mark.parametrize("contents, word", FILES.values(), ids=FILES)
def test_file_without_valid_settings_is_reported(tenant, run, parameters, contents, word):
    path = parameters(contents)
    message = settings_error(run(path=path), tenant)
    assert path in message
    assert word in message


MISTAKES = {
    "empty strings": dict.fromkeys(REQUIRED, ""),
    "empty lists": dict.fromkeys(REQUIRED, []),
    "null": dict.fromkeys(REQUIRED),
    "number": dict.fromkeys([*STRINGS, "scope"], 0),
    "object": dict.fromkeys([*STRINGS, "scope"], {"a": True}),
    "list": dict.fromkeys(STRINGS, ["a"]),
    "scope is a string": {"scope": "User.ReadBasic.All"},
    "number in scope": {"scope": [1]},
    "no scheme": dict.fromkeys(URLS, "//a/b"),
    "http": dict.fromkeys(URLS, "http://a.example"),
    "one of each kind": {"authority": "http://a", "client_id": "", "username": 1, "scope": "a"},
}


@pytest.mark.py27
@pytest.mark.parametrize("changes", MISTAKES.values(), ids=MISTAKES)
def test_all_mistakes_are_reported_together(tenant, run, parameters, changes):
    contents = json.dumps(dict(shipped_settings(), **changes)).encode()
    message = settings_error(run(path=parameters(contents)), tenant)
    named = [key for key in [*STRINGS, "scope"] if '"{}"'.format(key) in message]
    assert sorted(named) == sorted(changes)


@pytest.mark.py27
def test_other_keys_are_ignored(run):
    users_of(run(comment="moved here in 2014", proxies={}))


def test_urls_can_be_uppercase(tenant, run):
    tenant.directory.user_count = 200  # The link to the second page is in lowercase.
    endpoint = "HTTPS://GRAPH.microsoft.com/v1.0/users"
    authority = "HTTPS://LOGIN.microsoftonline.com/organizations"
    assert len(users_of(run(endpoint=endpoint, authority=authority))) == 200


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_in_the_encodings_of_windows_editors_can_be_read(run, parameters, encoding):
    text = PARAMETERS.read_text(encoding="utf-8")
    users_of(run(path=parameters(text.encode(encoding))))


@posix
@pytest.mark.py27
def test_settings_can_come_from_standard_input(run):
    with PARAMETERS.open("rb") as settings:
        users_of(run(path="/dev/stdin", stdin=settings))


def test_shipped_file_has_the_required_settings_and_a_password():
    assert sorted(shipped_settings()) == sorted([*REQUIRED, "password"])
