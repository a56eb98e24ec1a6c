"""`serinus import litellm`, as a shell sees it."""

from pathlib import Path

from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.controlplane.load import load

CONFIG = """\
model_list:
  - model_name: gpt-4o
    litellm_params:
      model: openai/gpt-4o
      api_key: os.environ/OPENAI_API_KEY
      temperature: 0
"""


def run(folder: Path, text: str, *options: str) -> Result:
    file = folder / "litellm.yaml"
    file.write_text(text)
    return CliRunner().invoke(main, ["import", "litellm", str(file), *options])


def test_configuration_is_printed_and_what_it_lacks_is_told_apart_from_it(tmp_path: Path) -> None:
    result = run(tmp_path, CONFIG)
    assert result.exit_code == 0
    assert result.stdout.startswith("# Made of litellm.yaml by `serinus import litellm`.")
    assert result.stderr.splitlines()[0] == (
        f"{tmp_path}/litellm.yaml:6: model_list[0].litellm_params.temperature: not converted: "
        "LiteLLM puts it into each "
        "request; Serinus changes no byte of a body: let callers send it"
    )


def test_output_is_a_file_that_loads(tmp_path: Path) -> None:
    output = tmp_path / "serinus.yaml"
    result = run(tmp_path, CONFIG, "--output", str(output))
    assert (result.exit_code, result.stdout) == (0, "")
    assert list(load(output, {"OPENAI_API_KEY": "sk-1"}).settings.upstreams) == ["openai"]


def test_what_comes_next_is_told_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "serinus.yaml"
    said = run(tmp_path, f"{CONFIG}general_settings: {{master_key: os.environ/MASTER}}\n", "-o", str(output)).stderr
    assert said.splitlines()[-1] == f"next: export MASTER, OPENAI_API_KEY (or --env-file); then serinus check {output}"
    free = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_base: 'http://127.0.0.1:1/v1'}}]"
    assert run(tmp_path, free).stderr.splitlines()[-1] == "next: serinus check FILE"


def test_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    output = tmp_path / "serinus.yaml"
    output.write_text("mine")
    result = run(tmp_path, CONFIG, "--output", str(output))
    assert result.exit_code == 1
    assert f"{output} is there already: choose another name, or move it away" in result.stderr
    assert output.read_text() == "mine"


def test_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    result = run(tmp_path, CONFIG, "--output", str(tmp_path / "nowhere" / "serinus.yaml"))
    assert result.exit_code == 1
    assert "cannot be written: no such file or directory" in result.stderr


def test_variables_for_the_import_may_stand_in_a_file(tmp_path: Path) -> None:
    env = tmp_path / "env"
    env.write_text("BASE=https://llm.example/v1\n")
    text = "model_list: [{model_name: a, litellm_params: {model: openai/a, api_base: os.environ/BASE}}]"
    assert "base_url: https://llm.example/v1" in run(tmp_path, text, "--env-file", str(env)).stdout.replace("'", "")
    assert "environment variable BASE is not set here" in run(tmp_path, text).stderr


def test_bad_file_is_refused_with_its_line(tmp_path: Path) -> None:
    result = run(tmp_path, "model_list:\n\t- a\n")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"{tmp_path}/litellm.yaml:2: not valid YAML: a tab: indent with blanks")
