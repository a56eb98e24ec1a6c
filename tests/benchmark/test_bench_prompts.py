from pathlib import Path

import pytest

from proxy.benchmark.prompts import OWN, PromptsInvalid, read_prompts


def file(folder: Path, content: str | bytes, name: str = "prompts.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def user(*texts: str) -> tuple[list[dict[str, str]], ...]:
    return tuple([{"role": "user", "content": text}] for text in texts)


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("one\ntwo\n", user("one", "two")),
        ("one\r\ntwo", user("one", "two")),
        ("\n\none\n   \ntwo\n\n", user("one", "two")),
        ('{"prompt": "one"}\n', user('{"prompt": "one"}')),
        ("Zebra\u2028 und \x85\x0b\x1c Fink\n", user("Zebra\u2028 und \x85\x0b\x1c Fink")),
        ("\ufeffone\n", user("one")),
    ],
)
def test_a_text_holds_one_a_line(content: str, prompts: object, tmp_path: Path) -> None:
    assert read_prompts(file(tmp_path, content)) == prompts


TALK = (
    '{"messages": [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]}'
)
TOOLS = (
    '{"messages": [{"role": "assistant", "content": null, "tool_calls": [{"id": "c1"}]},'
    ' {"role": "tool", "tool_call_id": "c1", "content": "5"}]}'
)


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ('{"prompt": "one"}\n"two"\n\n', user("one", "two")),
        ('{"id": 5, "prompt": "one", "messages": null}', user("one")),
        ('{"prompt": "one\\ntwo"}', user("one\ntwo")),
        ('{"prompt": "one\u2028two"}\n"three"\n', user("one\u2028two", "three")),
        ('\ufeff{"prompt": "one"}\n', user("one")),
        (
            TALK,
            ([{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}],),
        ),
        (
            TOOLS,
            (
                [
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
                    {"role": "tool", "tool_call_id": "c1", "content": "5"},
                ],
            ),
        ),
    ],
)
def test_json_lines_hold_texts_or_conversations(content: str, prompts: object, tmp_path: Path) -> None:
    assert read_prompts(file(tmp_path, content, "prompts.jsonl")) == prompts


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "truncated"),
        ("zebra", "malformed"),
        ("5", "Expected"),
        ("null", "Expected"),
        ("[]", "Expected"),
        ("{}", "no prompt: write"),
        ('{"messages": []}', "no prompt: write"),
        ('{"prompt": 5}', r"Expected .* `\$.prompt`"),
        ('{"messages": [{"role": "user"}]}', "content"),
        ('{"messages": [{"role": 5, "content": "a"}]}', "role"),
        ('{"x": ' + "[" * 100_000, "deserializing|deep"),
    ],
    ids=lambda value: value[:40],
)
def test_what_is_no_prompt_is_refused_with_its_line(line: str, why: str, tmp_path: Path) -> None:
    path = file(tmp_path, f'"one"\n\n{line}\n', "prompts.jsonl")
    with pytest.raises(PromptsInvalid, match=why) as refused:
        read_prompts(path)
    assert str(refused.value).startswith(f"{path}:3: ")


@pytest.mark.parametrize("content", ["", "\n", "  \n\t\n"])
def test_a_file_without_prompts_is_refused(content: str, tmp_path: Path) -> None:
    with pytest.raises(PromptsInvalid, match=r"prompts\.txt holds no prompts: write one a line"):
        read_prompts(file(tmp_path, content))


def test_what_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptsInvalid, match=r"prompts\.txt cannot be read: it is not utf-8"):
        read_prompts(file(tmp_path, b"\xff\xfea"))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptsInvalid, match=r"none cannot be read: no such file"):
        read_prompts(tmp_path / "none")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptsInvalid, match="cannot be read: is a directory"):
        read_prompts(tmp_path)


def test_a_file_of_somebody_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise PermissionError(13, "Permission denied")

    path = file(tmp_path, "one")
    monkeypatch.setattr(Path, "read_text", refuse)  # root may read everything
    with pytest.raises(PromptsInvalid, match="cannot be read: permission denied"):
        read_prompts(path)


def test_our_own_are_questions_of_a_user() -> None:
    assert len(OWN) >= 3
    assert all(len(prompt) == 1 and prompt[0]["role"] == "user" and prompt[0]["content"] for prompt in OWN)
