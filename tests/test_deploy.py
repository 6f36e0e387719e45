"""What deploy/ and docs/service.md say can be done: files can be read, commands, options and routes exist."""

import configparser
import functools
import os
import re
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_rooms import ROOT
from typer.testing import CliRunner

from interbasis.service.cli.app import app

DEPLOY = ROOT / "deploy"
SERVICE, SECURITY = (ROOT / "docs" / name for name in ("service.md", "security.md"))
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
GROUPS = ("db", "schedule", "token")
UNITS = ("interbasis.service", "interbasis-worker@.service")


@functools.cache
def usage(*words: str) -> str:
    """What `interbasis WORDS --help` prints, for no such command nothing."""
    shown = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "200"})
    return shown.stdout if shown.exit_code == 0 else ""


def documented() -> list[list[str]]:
    """Commands in documents: of code blocks, of comments, and in backquotes."""
    found = []
    for file in (SERVICE, SECURITY):
        text = file.read_text()
        found += re.findall(r"^\$ interbasis (.+)$", text, re.MULTILINE)
        found += re.findall(r"`interbasis ([^`]+)`", text)
    return [shlex.split(line) for line in found]


def deployed() -> list[list[str]]:
    """Commands that deploy/ runs."""
    services = COMPOSE["services"]
    found = [services[name]["command"] for name in ("api", "worker")]
    (script,) = services["init"]["command"]
    found += [shlex.split(line) for line in re.findall(r"^ *interbasis ([^>\n]+)", script, re.MULTILINE)]
    found += [shlex.split(unit(name)["Service"]["ExecStart"])[1:] for name in UNITS]
    (words,) = re.findall(r"^CMD (\[.+\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    return [*found, yaml.safe_load(words)]


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    assert parser.read(DEPLOY / name)
    return parser


def check(words: list[str]) -> None:
    depth = 2 if words[0] in GROUPS else 1
    shown = usage(*words[:depth])
    assert shown, f"no command {words[:depth]}"
    for option in (word.partition("=")[0] for word in words[depth:] if re.match(r"--?[a-z]", word)):
        assert re.search(rf"(?<!\S){re.escape(option)}(?!\S)", shown), f"{words}: no option {option}"


@pytest.mark.parametrize("words", documented(), ids=" ".join)
def test_documented_commands_exist(words: list[str]) -> None:
    check(words)


@pytest.mark.parametrize("words", deployed(), ids=" ".join)
def test_deployed_commands_exist(words: list[str]) -> None:
    check(words)


def test_commands_were_found() -> None:
    assert {"serve", "worker", "db", "token", "schedule", "submit"} <= {words[0] for words in documented()}
    deploying = [words[:2] for words in deployed()]
    assert ["db", "upgrade"] in deploying
    assert ["token", "new"] in deploying
    assert len(deploying) == 7


def test_check_finds_what_does_not_exist() -> None:
    with pytest.raises(AssertionError, match="no option --nam"):
        check(["worker", "--nam", "x"])
    with pytest.raises(AssertionError, match="no command"):
        check(["db", "backup"])


def test_routes_in_docs_are_those_of_the_service() -> None:
    """All of them, each with its methods."""
    from interbasis.service.api.app import ROUTERS

    said = set()
    for cell in re.findall(r"^\| ((?:GET|POST|PUT|DELETE).+?) \|", SERVICE.read_text(), re.MULTILINE):
        for part in cell.split("; "):
            methods = re.findall(r"\b(GET|POST|PUT|DELETE)\b", part)
            said |= {(method, path) for method in methods for path in re.findall(r"`([^`]+)`", part)}
    routes: list[Any] = [route for router in ROUTERS for route in router.routes]
    known = {(method, route.path) for route in routes for method in route.methods}
    known.remove(("POST", "/schedules/{ref}/{action}"))
    known |= {("POST", f"/schedules/{{ref}}/{action}") for action in ("pause", "resume", "run")}
    assert said == known | {("GET", "/openapi.json")}


@pytest.mark.parametrize("file", [SERVICE, SECURITY], ids=lambda file: file.name)
def test_links_lead_somewhere(file: Path) -> None:
    for target in re.findall(r"\]\(([^):]+)\)", file.read_text()):
        path, _, anchor = target.partition("#")
        linked = file.parent / path if path else file
        assert linked.exists(), target
        titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [title.lower().replace(" ", "-") for title in titles], target


def test_examples_of_requests_are_valid() -> None:
    """The bodies of the curl commands, as the service checks them."""
    from interbasis.service.api.schemas import CheckpointRequest, JobRequest

    bodies = dict(reversed(pair) for pair in re.findall(r"--json '(.+)' \$api/(\w+)", SERVICE.read_text()))
    assert CheckpointRequest.model_validate_json(bodies["checkpoints"]).path
    assert JobRequest.model_validate_json(bodies["jobs"]).task == "analyze"


# deploy/


def test_compose_publishes_to_this_machine_alone() -> None:
    services = COMPOSE["services"]
    assert services["api"]["ports"] == ["127.0.0.1:8422:8422"]
    assert not [name for name in services if name != "api" and "ports" in services[name]]
    assert services["database"]["image"] == "postgres:18"
    assert all("POSTGRES_PASSWORD:?" in str(service["environment"]) for service in services.values())
    assert COMPOSE["volumes"].keys() == {"database", "artifacts", "secrets"}


def test_compose_makes_the_token_before_the_api_starts() -> None:
    services = COMPOSE["services"]
    for name in ("api", "worker"):
        assert services[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
    assert services["init"]["restart"] == "no"
    (script,) = services["init"]["command"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    kind, program, flag, code = services["api"]["healthcheck"]["test"]
    assert (kind, program, flag) == ("CMD", "python", "-c")
    compile(code, "health check", "exec")
    assert "Authorization" in code


def test_compose_is_what_docker_takes() -> None:
    given = {**os.environ, "POSTGRES_PASSWORD": "x"}
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    try:
        version = subprocess.run([*command[:2], "version"], capture_output=True)
    except FileNotFoundError:
        version = None
    if version is None or version.returncode:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("no docker compose: its own reading of compose.yaml is SKIPPED", stacklevel=1)
        pytest.skip("no docker compose")
    done = subprocess.run(command, capture_output=True, text=True, env=given)
    assert done.returncode == 0, done.stderr


def test_image_copies_what_the_build_needs() -> None:
    lines = re.findall(r"^COPY (.+)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    copied = [name for line in lines for name in line.split()[:-1]]
    assert {"pyproject.toml", "README.md", "LICENSE", "package", "analysis", "service", "migrations"} <= set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_units_are_confined() -> None:
    for name in UNITS:
        service = unit(name)["Service"]
        expected = {"ProtectSystem": "strict", "NoNewPrivileges": "yes", "Restart": "on-failure"}
        expected |= {"TimeoutStopSec": "30", "KillMode": "mixed", "CapabilityBoundingSet": ""}
        assert {name: service[name] for name in expected} == expected
        assert "--host" not in service["ExecStart"]
        assert service.get("DynamicUser") == "yes" or service["User"] == "interbasis"
    assert unit("interbasis.service")["Service"]["StateDirectory"] == "interbasis"
    assert "--name %H-%i" in unit("interbasis-worker@.service")["Service"]["ExecStart"]


@pytest.mark.parametrize("name", UNITS)
def test_units_are_what_systemd_takes(name: str, tmp_path: Path) -> None:
    """With an executable in place of interbasis and a template's instance."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    file = tmp_path / name.replace("@", "@1")
    file.write_text((DEPLOY / name).read_text().replace("/opt/interbasis/bin/interbasis", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert name.partition(".")[0].rstrip("@") not in done.stderr, done.stderr
