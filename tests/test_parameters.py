"""What is told of parameters that cannot be used: status 2, and no request."""

import json
import subprocess

import pytest
from local_tenant import PARAMETERS

REQUIRED = ["authority", "client_id", "username", "scope", "endpoint"]


@pytest.fixture
def refused(tenant, run):
    """Return a function that runs the command and gives the problems told, without the path."""

    def refused(path, **more):
        result = run(path=path, **more)
        assert (result.status, tenant.requests) == (2, [])
        lines = result.stderr.splitlines()
        assert all(line.startswith(path + ": ") for line in lines)
        return [line[len(path) + 2 :] for line in lines]

    return refused


@pytest.mark.py27
@pytest.mark.parametrize("arguments", [[], ["a.json", "b.json"], ["--unknown", "a.json"]])
def test_wrong_usage_prints_the_usage(tenant, command, check, arguments):
    argv, env = command()
    done = subprocess.run([*argv[:2], *arguments], env=env, capture_output=True)
    result = check(done.returncode, done.stdout, done.stderr)
    assert result.status == 2
    assert result.stderr.startswith("usage: username_password_sample.py [-h] [-v] parameters\n")
    assert tenant.requests == []


@pytest.mark.py27
def test_a_missing_file(refused, tmp_path):
    assert refused(str(tmp_path / "missing.json")) == ["No such file or directory"]


def test_a_folder(refused, tmp_path):
    assert len(refused(str(tmp_path))) == 1


@pytest.mark.py27
def test_what_is_not_json(refused, parameters):
    (problem,) = refused(parameters(b'{\n  "authority": \n}'))
    assert problem.startswith("not JSON: ")


def test_what_is_not_json_is_told_with_line_and_column(refused, parameters):
    (problem,) = refused(parameters(b'{\n  "password": "a\\b\\c"\n}'))
    assert problem.startswith("not JSON: Invalid \\escape: line 2 column ")


@pytest.mark.parametrize("contents", [b"", b"{", b"[" * 100000, b'{"password": "a'])
def test_what_is_broken_off(refused, parameters, contents):
    assert refused(parameters(contents))[0].startswith("not JSON: ")


def test_a_file_in_latin_1(refused, parameters):
    (problem,) = refused(parameters('{"username": "Zoë"}'.encode("latin-1")))
    assert problem.startswith("not JSON: 'utf-8' codec can't decode byte 0xeb")


@pytest.mark.py27
@pytest.mark.parametrize("contents", [b"[]", b'"authority"', b"null", b"1"])
def test_what_is_no_object(refused, parameters, contents):
    assert refused(parameters(contents)) == ["not a JSON object"]


@pytest.mark.py27
@pytest.mark.parametrize("empty", [None, ""])
def test_every_missing_or_empty_setting_is_named_at_once(refused, parameters, empty):
    path = parameters(**dict.fromkeys(REQUIRED, empty))
    assert refused(path) == ['"{}" is missing or empty'.format(key) for key in REQUIRED]


@pytest.mark.py27
def test_all_problems_are_told_at_once(refused, parameters):
    path = parameters(
        authority="http://login.microsoftonline.com/organizations",
        client_id="",
        scope="User.ReadBasic.All",
        endpoint="graph.microsoft.com/v1.0/users",
        token_cache="parameters.json",
    )
    assert refused(path) == [
        '"client_id" is missing or empty',
        '"scope" must be a list of strings',
        '"authority" must be an https URL',
        '"endpoint" must be an https URL',
        '"token_cache" must not be the parameters file',
    ]


@pytest.mark.parametrize("key", ["authority", "endpoint"])
@pytest.mark.parametrize("url", [1, ["https://graph.microsoft.com"], "ftp://a", "//a/b", "https:a"])
def test_what_is_no_https_url(refused, parameters, key, url):
    assert refused(parameters(**{key: url})) == ['"{}" must be an https URL'.format(key)]


@pytest.mark.parametrize("scope", [{}, []])
def test_an_empty_scope(refused, parameters, scope):
    assert refused(parameters(scope=scope)) == ['"scope" is missing or empty']


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_editors_write_is_read(run, parameters, document, encoding):
    text = PARAMETERS.read_text(encoding="utf-8")
    assert run(path=parameters(text.encode(encoding))) == (0, document(), "")


@pytest.mark.py27
def test_other_keys_are_ignored(run):
    assert run(comment="moved here in 2014", proxies={}).status == 0


def test_the_shipped_file_has_the_six_settings_of_the_seed():
    config = json.loads(PARAMETERS.read_text(encoding="utf-8"))
    assert config == {
        "authority": "https://login.microsoftonline.com/organizations",
        "client_id": "your_client_id",
        "username": "your_username@your_tenant.com",
        "password": "This is a sample only. You better NOT persist your password.",
        "scope": ["User.ReadBasic.All"],
        "endpoint": "https://graph.microsoft.com/v1.0/users",
    }


@pytest.mark.parametrize("change", [{"client_id": 1}, {"username": ["a"]}, {"scope": [1]}])
def test_values_of_another_type_end_in_words(run, change):
    result = run(**change)
    assert result.status == 1
    assert result.stderr.startswith("Could not sign in: ") or result.stderr.count("\n") == 3


def test_the_letters_of_a_scheme_and_a_host_may_be_large(run, document):
    endpoint = "HTTPS://GRAPH.microsoft.com/v1.0/users"
    authority = "HTTPS://LOGIN.microsoftonline.com/organizations"
    assert run(endpoint=endpoint, authority=authority) == (0, document(), "")
