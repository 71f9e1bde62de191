"""What is told of parameters that cannot be used: the usage, the problems, status 2, no request."""

import subprocess

import pytest
from conftest import posix
from local_tenant import PARAMETERS

REQUIRED = ["authority", "client_id", "username", "scope", "endpoint"]
USAGE = "usage: username_password_sample.py [-h] [-v] parameters.json\n"
ERROR = USAGE + "username_password_sample.py: error: "


@pytest.fixture
def refused(tenant, run):
    """Return a function that runs the command and gives the problems told, without the path."""

    def refused(path, **more):
        result = run(path=path, **more)
        assert (result.status, tenant.requests) == (2, [])
        before = "{}{}: ".format(ERROR, path)
        assert result.stderr.startswith(before)
        return result.stderr[len(before) :].rstrip("\n")

    return refused


@pytest.mark.py27
@pytest.mark.parametrize("arguments", [[], ["a.json", "b.json"], ["--unknown", "a.json"]])
def test_wrong_usage_prints_the_usage(tenant, command, check, arguments):
    argv, env = command()
    done = subprocess.run([*argv[:2], *arguments], env=env, capture_output=True)
    result = check(done.returncode, done.stdout, done.stderr)
    assert result.status == 2
    assert ERROR in result.stderr
    assert tenant.requests == []


@pytest.mark.py27
def test_help_names_the_file(command):
    argv, env = command()
    done = subprocess.run([*argv[:2], "--help"], env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith(USAGE)


@pytest.mark.py27
def test_a_missing_file(refused, tmp_path):
    assert "No such file or directory" in refused(str(tmp_path / "missing.json"))


@posix
def test_a_folder(refused, tmp_path):
    assert "Is a directory" in refused(str(tmp_path))


@pytest.mark.py27
@pytest.mark.parametrize("contents", [b"", b'{\n  "authority": \n}', b"[1]", b"null", b"1"])
def test_what_is_no_json_object(refused, parameters, contents):
    assert refused(parameters(contents))


def test_what_is_not_json_is_told_with_line_and_column(refused, parameters):
    problem = refused(parameters(b'{\n  "password": "a\\b\\c"\n}'))
    assert problem.startswith("Invalid \\escape: line 2 column ")


def test_a_file_in_latin_1(refused, parameters):
    problem = refused(parameters('{"username": "Zoë"}'.encode("latin-1")))
    assert problem.startswith("'utf-8' codec can't decode byte 0xeb")


@pytest.mark.py27
@pytest.mark.parametrize("empty", [None, ""])
def test_every_missing_or_empty_setting_is_named_at_once(refused, parameters, empty):
    path = parameters(**dict.fromkeys(REQUIRED, empty))
    expected = ['"{}" is missing or empty'.format(key) for key in REQUIRED]
    assert refused(path) == "; ".join(expected)


@pytest.mark.py27
def test_all_problems_are_told_at_once(refused, parameters):
    path = parameters(
        authority="http://login.microsoftonline.com/organizations",
        client_id="",
        username=["a"],
        scope="User.ReadBasic.All",
        endpoint="graph.microsoft.com/v1.0/users",
        password=True,
        token_cache={},
    )
    assert refused(path).split("; ") == [
        '"authority" must be an https URL',
        '"client_id" is missing or empty',
        '"username" has the wrong type (scope is a list, all else text)',
        '"scope" has the wrong type (scope is a list, all else text)',
        '"endpoint" must be an https URL',
        '"password" has the wrong type (scope is a list, all else text)',
        '"token_cache" has the wrong type (scope is a list, all else text)',
    ]


@pytest.mark.parametrize("key", ["authority", "endpoint"])
@pytest.mark.parametrize("url", ["ftp://a", "//a/b", "https:a"])
def test_what_is_no_https_url(refused, parameters, key, url):
    assert refused(parameters(**{key: url})) == '"{}" must be an https URL'.format(key)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_what_windows_editors_write_is_read(run, parameters, document, encoding):
    text = PARAMETERS.read_text(encoding="utf-8")
    assert run(path=parameters(text.encode(encoding))) == (0, document(), "")


@pytest.mark.py27
def test_other_keys_are_ignored(run):
    assert run(comment="moved here in 2014", proxies={}).status == 0


def test_the_letters_of_a_scheme_and_a_host_may_be_large(run, document):
    endpoint = "HTTPS://GRAPH.microsoft.com/v1.0/users"
    authority = "HTTPS://LOGIN.microsoftonline.com/organizations"
    assert run(endpoint=endpoint, authority=authority) == (0, document(), "")
