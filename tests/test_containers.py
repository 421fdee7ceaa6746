"""Dockerfile, compose file and workflows, checked by the schemas and parsers that can be had without Docker."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
DOCKERFILE = ROOT / "3.quickstart/Dockerfile"
COMPOSE = ROOT / "3.quickstart/docker-compose.yml"
INSTRUCTIONS = {"ARG", "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as (instruction, argument), comments dropped and continued lines joined."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [tuple(line.split(None, 1)) for line in joined]


def schema_errors(schema: str, *files: Path) -> str:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def with_defaults(value: str) -> str:
    """A compose value as it is where no variable is set: ${NAME:-default} becomes default."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def serve_options(arguments: list[str]):
    """What `vllm serve` itself makes of its arguments; an option that it does not know ends the test."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    options = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
    validate_parsed_serve_args(options)
    return options


def test_compose_file_follows_the_compose_specification():
    assert schema_errors("vendor.compose-spec", COMPOSE) == ""


def test_the_schema_refuses_a_misspelt_key(tmp_path):
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text().replace("shm_size", "shmsize"))
    assert "shmsize" in schema_errors("vendor.compose-spec", wrong)


def test_workflows_follow_their_schema():
    assert schema_errors("vendor.github-workflows", *sorted((ROOT / ".github/workflows").glob("*.yml"))) == ""


def test_stages_exist_for_both_devices(instructions):
    assert {name for name, _ in instructions} <= INSTRUCTIONS
    for device in ("cpu", "gpu"):
        stages: set[str] = set()
        for name, argument in instructions:
            words = argument.replace("${DEVICE}", device).split()
            if name == "FROM":
                assert ":" in words[0] or words[0] in stages, words
                stages.add(words[2])
            for source in re.findall(r"--from=(\S+)", argument):
                assert source in stages
    assert "user" in "".join(name.lower() for name, _ in instructions), "the server must not run as root"


def test_copied_files_exist_and_reach_the_builder(instructions):
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [argument.split()[:-1] for name, argument in instructions if name == "COPY" and "--from" not in argument]
    for source in (path for paths in copied for path in paths):
        assert (ROOT / source).exists(), source
        assert any(source == path or source.startswith(path + "/") for path in allowed), f".dockerignore hides {source}"


def test_the_set_up_finds_its_files_in_the_build_stage(instructions, tmp_path):
    """What the first stage copies is enough to start the set-up: it gets as far as its own checks."""
    for argument in [argument for name, argument in instructions if name == "COPY" and "--from" not in argument][:2]:
        *sources, target = argument.split()
        (tmp_path / target).mkdir(exist_ok=True)
        for source in sources:
            (tmp_path / target / Path(source).name).write_bytes((ROOT / source).read_bytes())
    code = "from common import install; print(len(install.requirements('cpu')[0]), len(install.requirements('gpu')[0]))"
    done = subprocess.run([sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert [int(count) for count in done.stdout.split()] > [100, 10]


@pytest.mark.engine
def test_vllm_takes_the_images_command(instructions):
    commands = {name: json.loads(argument) for name, argument in instructions if name in ("ENTRYPOINT", "CMD")}
    program, verb, *arguments = commands["ENTRYPOINT"] + commands["CMD"]
    assert (program, verb) == ("vllm", "serve")
    options = serve_options(arguments)
    assert (options.host, options.port, options.served_model_name) == ("0.0.0.0", 8000, ["course-lm"])
    assert (ROOT / options.model_tag / "config.json").exists()


@pytest.mark.engine
@pytest.mark.parametrize("service", ["cpu", "gpu"])
def test_vllm_takes_the_services_commands(service):
    described = yaml.safe_load(COMPOSE.read_text())["services"][service]
    options = serve_options([with_defaults(word) for word in described["command"]])
    assert options.max_model_len == 2048
    assert (ROOT / options.model_tag / "config.json").exists()
    assert described["build"]["args"]["DEVICE"] == service
    assert (COMPOSE.parent / described["build"]["context"] / described["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert described["ports"] == ["127.0.0.1:${PORT:-8000}:8000"]


def test_health_checks_are_one_and_the_same_and_are_python(instructions):
    check = next(argument for name, argument in instructions if name == "HEALTHCHECK")
    command = json.loads(check[check.index("CMD") + 4 :])
    assert yaml.safe_load(COMPOSE.read_text())["services"]["cpu"]["healthcheck"]["test"] == ["CMD", *command]
    ast.parse(command[2])
    assert "/health" in command[2]
