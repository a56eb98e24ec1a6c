"""What a page may rely on where its commands run, and what it does not get away with."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.pages import play
from tests.docs.scene import NotAsShown, Scene
from tests.docs.stand_ins import STAND_INS


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[Scene]]]:
    scenes: list[Scene] = []

    async def played(text: str) -> Scene:
        page = tmp_path / "page.md"
        page.write_text(text)
        scenes.append(Scene(tmp_path, blocks(page)))
        await play(scenes[-1], blocks(page))
        return scenes[-1]

    yield played
    for scene in scenes:
        await scene.close()


def console(text: str) -> str:
    return f"Prose.\n\n```console\n{text}```\n"


async def test_what_a_command_sets_and_where_it_goes_holds_for_the_next(played):
    await played(
        console("$ mkdir inner && cd inner\n$ NAME='a b'\n$ echo $NAME in $PWD | sed 's,/.*/,,'\na b in inner\n")
    )


async def test_commands_go_on_over_lines_and_have_here_documents(played):
    await played(console("$ cat > a.txt <<'EOF'\none $two\nEOF\n$ cat \\\n    a.txt\none $two\n$ echo 'a\nb'\na\nb\n"))


async def test_yaml_with_a_name_is_that_file_and_hidden_commands_run_too(played):
    page = "```yaml\n# some.yaml\na: 1\n```\n<!-- scene\n$ export B=2\n-->\n" + console(
        "$ cat some.yaml; echo $B\n…\na: 1\n2\n"
    )
    await played(page)


async def test_other_hosts_are_simulated_upstreams_and_ports_are_free_ones(played):
    page = console(
        "$ curl https://api.example.com/v1/models | jq -r .object\nlist\n$ echo 127.0.0.1:8080\n127.0.0.1:8080\n"
    )
    scene = await played(page)
    assert await scene.translated("127.0.0.1:8080") != "127.0.0.1:8080"


async def test_python_calls_what_serves(played):
    config = "upstreams: {a: {base_url: https://api.example.com/v1}}\npools: {p: {members: [{upstream: a}]}}\n"
    config += "routes: [{prefix: /v1, pool: p}]\n"
    serve = f"```yaml\n# a.yaml\n{config}```\n" + console("$ serinus serve --config a.yaml\n")
    call = "import urllib.request\nassert b'list' in urllib.request.urlopen('http://127.0.0.1:8080/v1/models').read()\n"
    await played(f"{serve}```python\n{call}```\n")


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        ("$ frobnicate\n", "line 4: neither run nor listed"),
        ("$ echo a\nb\n", "it does not print what is shown:\nb"),
        ("$ echo a\n", None),
        ("$ echo abc\na…c\n", None),
        ("$ echo a; echo b\na\n", "it does not print what is shown"),
        ("$ test -e nothing\n", "it exits with 1, not 0"),
        ("$ test -e nothing # exits with 1\n", None),
        ("$ echo a # exits with 1\n", "it exits with 0, not 1"),
        ("$ serinus serve --config nothing.yaml\n", "it ended: serinus serve"),
        ("$ serinus serve --config nothing.yaml # exits with 1\nnothing.yaml: no such file or directory\n", None),
        ("$ FOO=1 serinus schema | head -1\n{\n", None),
    ],
)
async def test_what_comes_of_a_command_is_held_against_the_page(played, shown, complaint):
    if complaint is None:
        await played(console(shown))
    else:
        with pytest.raises(NotAsShown, match=re.escape(complaint)):
            await played(console(shown))


async def test_a_snippet_that_fails_fails(played):
    with pytest.raises(NotAsShown, match="ZeroDivisionError"):
        await played("```python\n1 / 0\n```\n")


async def test_lines_before_any_command_are_refused(played):
    with pytest.raises(ValueError, match="line 4: neither a command"):
        await played(console("serinus serve\n"))


def test_whatever_is_not_run_says_why():
    assert [entry.pattern for entry in STAND_INS if not entry.because] == []
