"""What the README shows: commands, code, settings, transcripts, and every troubleshooting row.

The prose isn't tested. Reviewers check it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import venv

import pytest
from helpers import (
    CALL_FAILED,
    NO_WAITS,
    SIGN_IN_FAILED,
    decode,
    local_tenant_command,
    posix,
    run_on_terminal,
    sample_command,
    shipped_tenant,
)
from local_tenant import PARAMETERS, ROOT, SAMPLE, load
from tenant import LocalTenant
from tenant.scenarios import SCENARIOS

README = (ROOT / "README.md").read_text(encoding="utf-8")
HEADING = re.compile(r"^(#+) (.+)$", re.M)
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^ *```$", re.M | re.S)

needs_jq = pytest.mark.skipif(not shutil.which("jq"), reason="needs jq")
needs_openssl = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")


def without_blocks(text):
    """Return the text without its code blocks."""
    return BLOCK.sub("", text)


def section(title):
    """Return the text from the heading to the next heading at the same or a higher level."""
    in_blocks = [match.span() for match in BLOCK.finditer(README)]
    headings = [
        match
        for match in HEADING.finditer(README)
        if not any(start < match.start() < end for start, end in in_blocks)
    ]
    (start,) = [match for match in headings if match.group(2) == title]
    for match in headings:
        if match.start() > start.start() and len(match.group(1)) <= len(start.group(1)):
            return README[start.end() : match.start()]
    return README[start.end() :]


def blocks(text, language):
    """Return the code blocks in this language."""
    return [textwrap.dedent(b) for _, name, b in BLOCK.findall(text) if name == language]


def the_block(title, language, word=""):
    """Return the only code block in this language that's below the heading and has the word."""
    (block,) = [block for block in blocks(section(title), language) if word in block]
    return block


def code(text):
    """Return everything between single backticks."""
    return re.findall(r"`([^`]+)`", without_blocks(text))


def rows(text):
    """Return the cells in each row of the first table, without the header row."""
    table = re.search(r"(^\|.*\n)+", text, re.M).group(0)
    return [[cell.strip() for cell in row[1:-1].split(" | ")] for row in table.splitlines()[2:]]


def without_ids(text):
    """Return the text with each GUID and each time replaced with a fixed word."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<guid>", text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "<time>", text)


# A clone like the one that a reader has


class Clone:
    """A copy of the project with this Python as its virtual environment."""

    def __init__(self, folder):
        self.folder = folder
        ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "*.local.json")
        shutil.copytree(ROOT, folder, ignore=ignored)
        self.make_environment()
        self.parameters = folder / "parameters.local.json"

    def make_environment(self):
        """Create a virtual environment that has this Python's packages."""
        if os.name == "nt":
            environment = self.folder / ".venv"
            venv.create(str(environment))
            packages = "\n".join(path for path in sys.path if path.endswith("site-packages"))
            (environment / "Lib" / "site-packages" / "packages.pth").write_text(packages)
            return
        python = self.folder / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text('#!/bin/sh\nexec "{}" "$@"\n'.format(sys.executable))
        python.chmod(0o755)

    def run(self, block, tenant=None, env=None, **more):
        """Run the commands in a shell block, and return the completed process.

        Commands that install packages are left out. .ci/run runs them.
        """
        lines = [line for line in block.splitlines() if " -m venv " not in line]
        lines = [line for line in lines if " -m pip install " not in line]
        environment = tenant.environment() if tenant else dict(os.environ)
        environment.update(env or {}, PYTHONDONTWRITEBYTECODE="1")
        more.setdefault("stdin", subprocess.DEVNULL)
        return subprocess.run(
            ["bash", "-e", "-c", "\n".join(lines)],
            cwd=str(self.folder),
            env=environment,
            capture_output=True,
            timeout=60,
            **more,
        )

    def configure(self, **changes):
        """Do step 3 with a tenant, an app, and a user that aren't the placeholders."""
        assert self.run(the_block("Step 3: Configure", "sh")).returncode == 0
        text = self.parameters.read_text(encoding="utf-8")
        for old, new in [("your_", "our_"), ("organizations", "our_tenant.com")]:
            assert old in text
            text = text.replace(old, new)
        self.parameters.write_text(text, encoding="utf-8")
        if changes:
            self.change(**changes)

    def change(self, **changes):
        """Change settings in parameters.local.json. None removes a setting."""
        settings = dict(json.loads(self.parameters.read_text(encoding="utf-8")), **changes)
        settings = {key: value for key, value in settings.items() if value is not None}
        self.parameters.write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def save_program(self, name, title, word):
        """Save the Python program of a section under this name."""
        program = the_block(title, "python", word)
        (self.folder / name).write_text(program, encoding="utf-8")

    def tenant(self, scenario=None):
        """Return the local tenant of parameters.local.json."""
        tenant = LocalTenant(load(self.parameters))
        if scenario:
            SCENARIOS[scenario](tenant)
        return tenant


@pytest.fixture
def clone(tmp_path):
    """A clone for the shell blocks."""
    if os.name != "posix":
        pytest.skip("needs POSIX")
    return Clone(tmp_path / "clone")


def users_in(text):
    """Return the users in a JSON document that the sample has printed."""
    return json.loads(text)["value"]


# Blocks in general


@pytest.mark.parametrize("block", blocks(README, "powershell"))
def test_powershell_block_has_no_syntax_errors(block):
    import tree_sitter
    import tree_sitter_powershell

    language = tree_sitter.Language(tree_sitter_powershell.language())
    tree = tree_sitter.Parser(language).parse(block.encode())
    assert not tree.root_node.has_error


@pytest.mark.parametrize("block", blocks(README, "powershell"))
def test_powershell_block_works_in_windows_powershell_5(block):
    assert "&&" not in block
    assert "||" not in block


@posix
@pytest.mark.parametrize("block", blocks(README, "sh"))
def test_shell_block_has_no_syntax_errors(block):
    subprocess.run(["bash", "-n", "-c", block], check=True)


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_python_block_has_no_syntax_errors(block):
    compile(re.sub(r":\n\Z", ": pass\n", block), "block", "exec")


@pytest.mark.parametrize("title", ["Try it", "Step 1: Get the code", "Run the tests"])
def test_powershell_installs_the_same_packages_as_the_shell(title):
    installs = []
    for language in ("sh", "powershell"):
        (line,) = re.findall(r"-m pip install (.*)", "".join(blocks(section(title), language)))
        installs.append(line.replace("\\", "/"))
    assert installs[0] == installs[1]


@pytest.mark.skipif(not shutil.which("powershell"), reason="needs Windows PowerShell")
def test_powershell_blocks_set_up_and_run_the_job(tmp_path):
    clone = Clone(tmp_path / "clone")

    def run(block, tenant=None):
        path = clone.folder / "block.ps1"
        path.write_text(block, encoding="utf-8")
        environment = tenant.environment() if tenant else dict(os.environ)
        command = ["powershell", "-ExecutionPolicy", "Bypass", "-File", str(path)]
        return subprocess.run(
            command, cwd=str(clone.folder), env=environment, capture_output=True, timeout=100
        )

    assert run(the_block("Step 3: Configure", "powershell")).returncode == 0
    text = clone.parameters.read_text(encoding="utf-8").replace("your_", "our_")
    clone.parameters.write_text(text, encoding="utf-8")
    clone.change(**json.loads(the_block("Get more properties", "json")))
    assert len(users_in(run(the_block("Step 4: Test the file", "powershell")).stdout)) == 5
    with clone.tenant() as tenant:
        block = the_block("Windows: Task Scheduler", "powershell", "nightly.cmd -Encoding")
        job = run(block, tenant)
    assert "Exit status: 0" in decode(job.stdout)
    assert len(users_in((clone.folder / "users.json").read_text(encoding="utf-8"))) == 5
    clone.save_program("users_to_csv.py", "A nightly CSV file", "csv")
    with clone.tenant() as tenant:
        run(the_block("A nightly CSV file", "powershell", "Add-Content"), tenant)
    assert "Zoë Brontë" in (clone.folder / "users.csv").read_text(encoding="utf-8-sig")


def test_workflow_runs_the_powershell_blocks_that_a_newcomer_pastes():
    workflow = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    lines = {line.strip() for line in workflow.splitlines()}
    for title in ("Try it", "Run the tests"):
        for block in blocks(section(title), "powershell"):
            assert set(block.splitlines()) <= lines


def test_local_links_and_anchors_exist():
    titles = [title for _, title in HEADING.findall(without_blocks(README))]
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        elif not link.startswith("https://"):
            assert (ROOT / link).exists()


# Try it


def test_try_it_prints_what_the_first_screen_shows(clone):
    command = the_block("Try it", "sh", "--users").splitlines()[-1]
    status, printed = run_on_terminal(["bash", "-c", command], cwd=str(clone.folder))
    assert status == 0
    assert printed.startswith(the_block("username_password_sample", "text", "Users from graph"))


def test_wrong_password_prints_what_the_readme_shows(clone):
    command = the_block("Try it", "sh", "wrong-password")
    status, printed = run_on_terminal(["bash", "-c", command], cwd=str(clone.folder))
    assert status == 1
    assert without_ids(printed) == without_ids(the_block("Try it", "text"))


# Set up


def test_setup_steps_create_a_private_parameters_file_that_works(clone):
    clone.configure()
    assert clone.parameters.stat().st_mode & 0o777 == 0o600
    tested = clone.run(the_block("Step 4: Test the file", "sh"))
    assert (tested.returncode, tested.stderr) == (0, b"")
    assert len(users_in(tested.stdout)) == 5
    command = the_block("Step 5: Run the script", "sh", ".venv/bin/python")
    with clone.tenant() as tenant:
        done = clone.run(command, tenant)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "change, word",
    [
        ({"client_id": "your_client_id"}, "AADSTS700016"),
        ({"username": "your_username@your_tenant.com"}, "AADSTS50034"),
        ({"password": "your_password"}, "AADSTS50126"),
        ({"scope": ["User.ReadBasicAll"]}, "AADSTS650053"),
        ({"scope": "User.ReadBasic.All"}, "must be a list"),
        ({"endpoint": "https://graph.microsoft.com/v1.0/user"}, CALL_FAILED),
    ],
)
def test_testing_the_file_finds_the_mistakes_that_the_readme_lists(clone, change, word):
    clone.configure(**change)
    done = clone.run(the_block("Step 4: Test the file", "sh"))
    assert done.returncode != 0
    assert word in decode(done.stderr)


def test_readme_shows_the_uv_and_pipx_commands_that_are_tested():
    tools = the_block("Step 5: Run the script", "sh", "uv run").splitlines()
    assert tools == [
        "{} {} parameters.local.json".format(tool, SAMPLE.name) for tool in ("uv run", "pipx run")
    ]


# Settings and output


def test_settings_table_lists_every_setting_of_the_sample():
    table = {code(row[0])[0]: row[1] for row in rows(section("Settings"))}
    source = SAMPLE.read_text(encoding="utf-8")
    for kind in ("required", "optional"):
        names = re.search(r"^{}_SETTINGS = \((.*)\)".format(kind.upper()), source, re.M).group(1)
        assert {key for key in table if table[key] == kind} == set(re.findall(r'"(\w+)"', names))


def test_basic_profile_has_the_properties_that_the_readme_lists():
    sentence = section("Get more properties").split(".", 3)[2]
    shown = {key for key, value in shipped_tenant().graph.page()["value"][0].items() if value}
    assert set(code(sentence)) == shown


@pytest.mark.parametrize("title", ["Get more properties", "Leave out guests and disabled accounts"])
def test_settings_examples_work(clone, title):
    clone.configure(**json.loads(the_block(title, "json")))
    users = users_in(clone.run(the_block("Step 4: Test the file", "sh")).stdout)
    assert set(users[0]) == {"displayName", "userPrincipalName", "department"}
    assert users[0]["department"]
    guests = [user for user in users if "#EXT#" in user["userPrincipalName"]]
    assert (len(users), len(guests)) == ((5, 1) if title.startswith("Get") else (3, 0))


def test_me_shows_only_the_account(clone):
    (endpoint,) = [url for url in code(section("Settings")) if url.endswith("/me")]
    clone.configure(endpoint=endpoint, scope=["User.Read"])
    done = clone.run(the_block("Step 4: Test the file", "sh"))
    assert json.loads(done.stdout)["mail"] == "our_username@our_tenant.com"


@pytest.mark.parametrize("block", blocks(section("National clouds"), "json"))
def test_national_clouds_work(clone, block):
    clone.configure(**json.loads(block))
    done = clone.run(the_block("Step 4: Test the file", "sh"))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("changes", [{}, {"password": "wrong"}, {"scope": "User.ReadBasic.All"}])
def test_exit_status_table_matches_the_sample(run, changes):
    table = rows(section("Output and exit status"))
    result = run(**changes)
    first, *_ = [row for row in table if row[0] == str(result.status)]
    assert first[2].startswith("Empty") == (result.stdout == "")
    assert first[3].startswith("Empty") == (result.stderr == "")
    assert [row[0] for row in table] == ["0", "1", "1", "2", "130"]


# Save the sign-in


def save_sign_in(clone, tenant):
    """Do the steps of "Save the sign-in" up to the prompt, and return what the terminal shows."""
    text = clone.parameters.read_text(encoding="utf-8")
    line = the_block("Save the sign-in", "json").strip()
    text = re.sub(r'^ *"password":.*$', line.replace("\\", r"\\"), text, flags=re.M)
    clone.parameters.write_text(text, encoding="utf-8")
    command = the_block("Save the sign-in", "sh", "parameters.local.json\n")
    status, screen = run_on_terminal(
        ["bash", "-c", command],
        prompt=": ",
        keys=tenant.directory.password.encode() + b"\n",
        cwd=str(clone.folder),
        env=tenant.environment(),
    )
    assert status == 0
    return screen


def test_saved_sign_in_needs_no_password_in_a_file(clone):
    password = "correct horse battery staple"
    clone.configure(password=password)
    with clone.tenant() as tenant:
        screen = save_sign_in(clone, tenant)
        assert screen.startswith("Password for ")
        done = clone.run(the_block("Save the sign-in", "sh", "/dev/null"), tenant)
        assert (done.returncode, done.stderr) == (0, b"")
        assert tenant.grants() == ["password"]
    assert decode(done.stdout) == "Exit status: 0\n"
    assert (clone.folder / "token_cache.json").stat().st_mode & 0o777 == 0o600
    for path in clone.folder.glob("*.json"):
        assert password not in path.read_text(encoding="utf-8")


def test_ended_sign_in_shows_the_message_in_the_readme(clone):
    clone.configure()
    with clone.tenant("sign-in-ended") as tenant:
        save_sign_in(clone, tenant)
        done = clone.run(the_block("Save the sign-in", "sh", "/dev/null"), tenant)
    assert done.returncode == 1
    (words,) = [words for words in code(section("When a saved sign-in ends")) if "saved" in words]
    assert words in decode(done.stderr)
    assert "AADSTS70043" in decode(done.stderr)


# Schedule it


def test_cron_job_replaces_the_list_only_after_a_success(clone):
    clone.configure()
    with clone.tenant() as tenant:
        done = clone.run(the_block("Linux and macOS: cron", "sh", "nightly.sh <<"), tenant)
        assert (decode(done.stdout), done.stderr) == ("Exit status: 0\n", b"")
    line = decode(clone.run(the_block("Linux and macOS: cron", "sh", "nightly.sh'\"")).stdout)
    assert line == "15 6 * * * '{}/nightly.sh'\n".format(clone.folder)
    job = line.split(" ", 5)[5]
    with clone.tenant("forbidden") as tenant:
        done = subprocess.run(
            ["sh", "-c", job], cwd="/", env=tenant.environment(), capture_output=True
        )
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"Forbidden" in done.stderr
    listing = clone.folder / "users.json"
    assert len(users_in(listing.read_text(encoding="utf-8"))) == 5
    assert listing.stat().st_mode & 0o777 == 0o600


def test_failed_cron_job_shows_the_error_and_keeps_the_list(clone):
    clone.configure()
    with clone.tenant() as tenant:
        clone.run(the_block("Linux and macOS: cron", "sh", "nightly.sh <<"), tenant)
    before = (clone.folder / "users.json").read_bytes()
    command = the_block("Linux and macOS: cron", "sh", "no-network").splitlines()[0]
    done = clone.run(command)
    assert done.returncode == 1
    assert decode(done.stderr).startswith(SIGN_IN_FAILED)
    assert (clone.folder / "users.json").read_bytes() == before
    assert (clone.folder / "users.new").read_bytes() == b""


def test_find_command_prints_an_outdated_list(clone):
    clone.run("echo > users.json")
    find = the_block("Linux and macOS: cron", "sh", "find ")
    assert clone.run(find).stdout == b""
    os.utime(str(clone.folder / "users.json"), (0, 0))
    assert clone.run(find).stdout == b"users.json\n"


def test_practice_shell_connects_to_the_local_tenant(clone):
    clone.configure(password=None, token_cache="token_cache.json")
    command = the_block("Practice without Microsoft's services", "sh", "bash")
    inner = "curl -sS https://graph.microsoft.com/v1.0/me | head -c 300\n"
    done = clone.run(command, stdin=None, input=inner.encode())
    assert b"InvalidAuthenticationToken" in done.stdout
    for name in ("token_cache.json", "users.json", "users.new"):
        (clone.folder / name).write_text("")
    cleanup = the_block("Practice without Microsoft's services", "sh", "rm ")
    assert clone.run(cleanup).returncode == 0
    assert not [*clone.folder.glob("users.*"), *clone.folder.glob("token_cache.json")]


def test_cron_job_writes_a_csv_file_with_the_department(clone):
    clone.configure(**json.loads(the_block("Get more properties", "json")))
    clone.save_program("users_to_csv.py", "A nightly CSV file", "csv")
    with clone.tenant() as tenant:
        clone.run(the_block("Linux and macOS: cron", "sh", "nightly.sh <<"), tenant)
        done = clone.run(the_block("A nightly CSV file", "sh"), tenant)
    assert (done.returncode, done.stderr) == (0, b"")
    head, first, *_ = (clone.folder / "users.csv").read_text(encoding="utf-8-sig").splitlines()
    assert head == "displayName,userPrincipalName,department"
    name, account, department = first.split(",")
    assert (name, account) == ("Zoë Brontë", "our_username@our_tenant.com")
    assert department


@needs_jq
def test_password_can_come_from_an_environment_variable(clone):
    clone.configure()
    with clone.tenant() as tenant:
        password = tenant.directory.password
        clone.change(password=None)
        block = the_block("Take the password from a secret store", "sh")
        done = clone.run(block, tenant, env={"M365_PASSWORD": password})
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(users_in(done.stdout)) == 5


def test_proxy_variables_in_the_readme_send_requests_through_the_proxy(clone):
    exports = "".join(blocks(section("Proxy"), "sh"))
    names = re.findall(r"^export (\w+)=", exports, re.M)
    assert set(names) == {"HTTPS_PROXY", "REQUESTS_CA_BUNDLE"}
    with shipped_tenant() as tenant:
        clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        values = tenant.environment()
        env = dict(clean, **{name: values[name] for name in names})
        done = subprocess.run(sample_command(str(PARAMETERS)), env=env, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        assert tenant.requests


def test_git_ignores_the_files_that_the_readme_creates(clone):
    git = ["git", "-c", "core.excludesFile="]
    subprocess.run([*git, "init", "-q"], cwd=str(clone.folder), check=True)
    names = [
        "parameters.local.json",
        "token_cache.json",
        "users.json",
        "users.new",
        "users.err",
        "users.csv",
        "users_to_csv.py",
        "csv.new",
        "proxy.cer",
        "proxy-ca.pem",
        "nightly.sh",
        "nightly.cmd",
        "device_code.py",
        "app_only.py",
        "app_only.key",
        "app_only.cer",
        "app_only.pfx",
        ".venv",
    ]
    assert all(name in README for name in names)
    ignored = subprocess.run(
        [*git, "check-ignore", *names], cwd=str(clone.folder), capture_output=True, text=True
    )
    assert ignored.stdout.split() == names


# Move off this flow


def test_unchanged_sample_uses_a_device_code_sign_in(clone):
    clone.configure(password=None, token_cache="token_cache.json")
    clone.save_program("device_code.py", "Device code", "initiate_device_flow")
    commands = [b for b in blocks(section("Device code"), "sh") if "local_tenant.py" not in b]
    with clone.tenant("mfa-required") as tenant:
        done = clone.run("".join(commands), tenant)
        assert (done.returncode, done.stderr) == (0, b"")
        printed = decode(done.stdout)
        assert "password" not in tenant.grants()
    assert printed.startswith("To sign in, use a web browser")
    assert len(users_in(printed[printed.index("{") :])) == 5


def test_device_code_works_on_the_local_tenant_as_the_readme_shows(clone):
    clone.configure(password=None, token_cache="token_cache.json")
    clone.save_program("device_code.py", "Device code", "initiate_device_flow")
    done = clone.run(the_block("Device code", "sh", "local_tenant.py"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"our_username@our_tenant.com" in done.stdout
    assert not (clone.folder / "token_cache.json").exists()


@needs_openssl
def test_app_only_program_lists_all_users_without_a_password(clone):
    clone.save_program("app_only.py", "App-only", "ConfidentialClientApplication")
    made = clone.run(the_block("App-only", "sh", "openssl"))
    assert made.returncode == 0
    assert (clone.folder / "app_only.pfx").stat().st_mode & 0o777 == 0o600
    assert not (clone.folder / "app_only.key").exists()
    done = clone.run(the_block("App-only", "sh", "local_tenant.py"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(users_in(done.stdout)) == 5
    with shipped_tenant() as tenant:
        tenant.directory.certificate = (clone.folder / "app_only.cer").read_bytes()
        tenant.directory.user_count = 2500
        command = the_block("Run it", "sh", "python app_only.py")
        done = clone.run(command, tenant)
        assert len(users_in(done.stdout)) == 2500
        assert tenant.grants() == ["client_credentials"]
        assert tenant.steps().count("graph") == 3


# About the code


@pytest.mark.parametrize("block", blocks(section("About the code"), "python"))
def test_quoted_code_is_in_the_sample(block):
    source = "\n".join(line.strip() for line in SAMPLE.read_text(encoding="utf-8").splitlines())
    quoted = "\n".join(line.strip() for line in block.strip().splitlines())
    assert quoted in source


def test_quoted_scope_is_in_the_shipped_file():
    assert the_block("About the code", "json").strip() in PARAMETERS.read_text(encoding="utf-8")


STEPS = {
    "openid-configuration": "discovery",
    "discovery/instance": "instance",
    "userrealm": "realm",
    "MEX": "mex",
    "WS-Trust": "wstrust",
    "token": "token",
    "users": "graph",
}


def test_diagram_shows_the_requests_in_order(tenant, run):
    arrows = re.findall(r"script->>(.+?): (.*)", the_block("Requests in one run", "mermaid"))
    shown = [
        [STEPS[word] for word in re.findall(r"(?:GET|POST) ([\w/-]+)", text)] for _, text in arrows
    ]
    first, renewal, instance, realm, adfs, password, last = shown

    def steps(**changes):
        del tenant.requests[:]
        assert run(**changes).status == 0
        return tenant.steps()

    tenant.entra.token_lifetime = 60  # MSAL renews a token with less than five minutes left.
    cold = first + instance + realm + password + last
    assert steps(token_cache="cache.json") == cold
    assert steps(token_cache="cache.json") == first + renewal + last
    tenant.entra.realm = "Federated"
    assert steps() == first + instance + realm + adfs + password + last


def test_readme_lists_the_hosts_that_a_run_connects_to(tenant, run):
    tenant.entra.realm = "Federated"
    assert run().status == 0
    hosts = [host for row in rows(section("Network")) for host in code(row[0])]
    hosts = [host for host in hosts if "py" not in host]  # Without the package index's hosts.
    assert {host + ":443" for host in hosts} == set(tenant.server.connections)


# Troubleshooting

TABLES = ["Sign-in errors", "Graph errors", "Network errors"]
ROWS = [(title, row) for title in TABLES for row in rows(section(title))]
NAMED = [name for title in TABLES for row in rows(section(title)) for name in code(row[3])]


def test_every_failing_scenario_has_a_row():
    failing = {name for name, scenario in SCENARIOS.items() if not scenario.succeeds}
    assert {name for name in NAMED if not name.startswith('"')} == failing


def run_in(tenant, command):
    """Run the command in the tenant, and return the completed process."""
    return subprocess.run(
        command,
        env=tenant.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=100,
    )


def run_scenario(name):
    """Run the sample in this scenario without waits, and return the completed process."""
    if SCENARIOS[name].saved_sign_in:
        command = local_tenant_command("--scenario", name)
    else:
        command = sample_command(str(PARAMETERS), constants=NO_WAITS)
    tenant = shipped_tenant()
    SCENARIOS[name](tenant)
    with tenant:
        return run_in(tenant, command)


def run_mistake(mistake, tmp_path):
    """Run the sample with this mistake in its parameters file, and return the process."""
    settings = json.loads(PARAMETERS.read_text(encoding="utf-8").replace("your_", "our_"))
    settings.update(json.loads("{" + mistake + "}"))
    path = tmp_path / "parameters.json"
    path.write_text(json.dumps(settings), encoding="utf-8")
    with LocalTenant(load(path)) as tenant:
        return run_in(tenant, sample_command(str(path)))


@pytest.mark.parametrize("title, row", ROWS, ids=[row[3].strip("`") for _, row in ROWS])
def test_troubleshooting_row_shows_what_its_scenario_or_mistake_shows(tmp_path, title, row):
    seen, (cause,) = code(row[0]), code(row[3])
    done = run_mistake(cause, tmp_path) if cause.startswith('"') else run_scenario(cause)
    stderr = decode(done.stderr)
    assert (done.returncode, done.stdout) == (1, b"")
    shown = [words for words in seen if words in stderr]
    assert shown[:1] == seen[:1]
    if " or " not in row[0]:
        assert shown == seen
    if title != "Network errors":
        assert stderr.startswith(SIGN_IN_FAILED if title.startswith("Sign-in") else CALL_FAILED)


def test_scenarios_in_the_faq_succeed():
    named = re.findall(r"--scenario ([\w-]+)", section("FAQ"))
    assert named
    assert all(SCENARIOS[name].succeeds for name in named)
