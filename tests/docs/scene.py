"""Where the commands of one page run, in their order: a folder like a fresh clone, with a world around it.

A page says `127.0.0.1:8080` and `https://api.openai.com`. Here each port that it names is a free one, and each other
host a simulated upstream: commands and files are put in these words before they run, and what they print is put back.
So pages are written for their readers, and any number of scenes run side by side. Where a command relies on Serinus'
default ports, which no text shows, `serinus` in the scene's path has others.
"""

import asyncio
import os
import random
import re
import shutil
import stat
import sys
from pathlib import Path

from proxy.simulation import Behaviour, SimulatedUpstream
from tests.docs.blocks import Block, Command
from tests.docs.running import Ended, Running
from tests.docs.stand_ins import LOOKS, Lasting, is_run, lasting, shortened, stand_in
from tests.support.patience import PATIENCE_S
from tests.support.ports import held_socket

ROOT = Path(__file__).parents[2]
_OUTSIDE = re.compile(r"(?:https?|wss?)://(?!127\.0\.0\.1|localhost|\[)([A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)(?::\d+)?")
_PORT = re.compile(r"(?:(?<=:)|(?<=port )|(?<=port=))[1-9]\d{3,4}\b")
_DEFAULT_PORTS = ("8080", "9090", "9001")  # of a listener, of the admin's, of a simulated upstream

# What is exported, and where the commands went, is kept between them; `set -a` exports all that is set.
_SHELL = """
set -a -o pipefail
. "$1"
trap '{ export -p; printf "cd %q\\n" "$PWD"; } > "$1"' EXIT
eval "$2"
"""

_SERINUS = """#!{python}
import sys
from proxy.cli import main
if sys.argv[1:2] in (["serve"], ["check"], ["schema"]):  # the others read no configuration
    from proxy.model.settings import Admin, Settings
    Admin.model_fields["listen"].default = "127.0.0.1:{admin}"
    Settings.model_fields["listen"].default = "127.0.0.1:{listen}"
    Admin.model_rebuild(force=True)
    Settings.model_rebuild(force=True)
ports = {{"demo": {{"port": {listen}, "admin_port": {admin}}}, "simulate": {{"port": {simulated}}}}}
main(prog_name="serinus", default_map=ports)
"""


class NotAsShown(Exception):
    """What came of a step is not what its page says."""


class Scene:
    def __init__(self, folder: Path, page: list[Block]) -> None:
        self.folder = folder / "serinus"
        self._state, self._bin = folder / "state.sh", folder / "bin"
        said = "\n".join(block.text for block in page)
        self._held = [held_socket() for _ in {*_DEFAULT_PORTS, *_PORT.findall(_OUTSIDE.sub("", said))}]
        names = sorted({*_DEFAULT_PORTS, *_PORT.findall(_OUTSIDE.sub("", said))})
        free = (str(held.getsockname()[1]) for held in self._held)
        self._words = dict(zip(names, free, strict=True))  # the page's → the scene's
        self._upstreams: dict[str, SimulatedUpstream] = {}  # by scheme and host
        self._begun: list[Running] = []
        self._places: dict[str, Running] = {}

    async def open(self) -> None:
        self.folder.mkdir()
        for entry in ROOT.iterdir():
            if not entry.name.startswith(".") and entry.name != "config":
                (self.folder / entry.name).symlink_to(entry)
        for example in shutil.copytree(ROOT / "config", self.folder / "config").glob("**/*.yaml"):
            example.write_text(await self.translated(example.read_text()))
        self._bin.mkdir()
        ports = dict(zip(("listen", "admin", "simulated"), map(self._words.get, _DEFAULT_PORTS), strict=True))
        (self._bin / "serinus").write_text(_SERINUS.format(python=sys.executable, **ports))
        (self._bin / "serinus").chmod(stat.S_IRWXU)
        (self.folder.parent / ".curlrc").write_text("silent\nshow-error\n")  # no progress, as in a terminal
        self._state.write_text(f"cd '{self.folder}'\n")

    async def close(self) -> None:
        for running in self._begun:
            await running.end()
        for upstream in self._upstreams.values():
            await upstream.stop()
        for held in self._held:
            held.close()

    async def translated(self, text: str) -> str:
        """The page's words in the scene's."""
        for match in list(_OUTSIDE.finditer(text)):
            if match[0] not in self._upstreams:
                upstream = SimulatedUpstream(Behaviour(name=match[1]), random.Random(match[1]))
                self._upstreams[match[0]] = await upstream.start()
        text = _OUTSIDE.sub(lambda match: self._upstreams[match[0]].url, text)
        text = text.replace(".venv/bin/", "").replace("…", "0123456789")  # `sk-…` is a key of one's own
        return re.sub(rf"\b({'|'.join(self._words)})\b", lambda match: self._words[match[0]], text)

    def told(self, text: str) -> str:
        """The scene's words in the page's."""
        for shown, upstream in self._upstreams.items():
            text = text.replace(upstream.url, shown).replace(upstream.url.removeprefix("http://"), shown)
        text = text.replace(str(self.folder), ".")
        back = {free: shown for shown, free in self._words.items()}
        return re.sub(rf"\b({'|'.join(back)})\b", lambda match: back[match[0]], text)

    async def write(self, block: Block) -> None:
        path = self.folder / (block.file_name or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(await self.translated(block.text))

    async def snippet(self, block: Block) -> None:
        (self.folder.parent / "snippet.py").write_text(await self.translated(block.text))
        await self.run(Command(f"python '{self.folder.parent / 'snippet.py'}'", "", block.line))

    async def run(self, command: Command) -> None:
        """Raises NotAsShown."""
        text = command.text.replace(".venv/bin/", "")
        there = stand_in(text)
        if there is not None and there.instead is None:
            return
        if there is not None:
            text = re.match(there.pattern, text).expand(there.instead)
        elif not is_run(text):
            raise NotAsShown(f"line {command.line}: neither run nor listed in tests/docs/stand_ins.py: {text}")
        kind = lasting(text) if command.exit_status == 0 else None
        if kind is not None:
            text = re.sub(r"\s&\s*(#.*)?$", "", text)  # it is left running here, too
        shown = "" if there is not None else command.shown
        await self._go(Command(shortened(text), shown, command.line), kind)

    async def _go(self, command: Command, kind: Lasting | None) -> None:
        looks = command.shown and LOOKS.match(command.text)
        said: Running | None = None
        try:
            async with asyncio.timeout(PATIENCE_S):
                if kind is not None:
                    said = await self._started(command, kind)
                    await said.until(lambda: self._is_ready(said, command, kind))
                    return
                while True:
                    said = await self._begin(command)
                    await said.until(lambda: False)
                    wrong = self._wrong(said, command)
                    if wrong is None:
                        return
                    if not looks:
                        raise NotAsShown(wrong)
        except TimeoutError:
            raise NotAsShown(self._wrong(said, command) or f"line {command.line}: it never was ready") from None
        except Ended:
            raise NotAsShown(f"line {command.line}: it ended: {command.text}\n{self.told(said.text)}") from None

    async def _begin(self, command: Command) -> Running:
        script = (_SHELL, "bash", str(self._state), await self.translated(command.text))
        running = Running()
        self._begun.append(running)
        await running.start("bash", "-c", *script, environ=self._environ())
        return running

    async def _started(self, command: Command, kind: Lasting) -> Running:
        if kind.place in self._places:
            await self._places.pop(kind.place).end()
        running = await self._begin(command)
        running.lasts = True
        if kind.place is not None:
            self._places[kind.place] = running
        return running

    def _is_ready(self, said: Running, command: Command, kind: Lasting) -> bool:
        return bool(re.search(kind.ready, said.text)) and _fits(command.shown, self.told(said.text), whole=False)

    def _wrong(self, said: Running, command: Command) -> str | None:
        text = self.told(said.text)
        wrong = []
        if not said.lasts and said.status != command.exit_status:
            wrong.append(f"it exits with {said.status}, not {command.exit_status}")
        if command.shown and not _fits(command.shown, text, whole=not said.lasts):
            wrong.append(f"it does not print what is shown:\n{command.shown}")
        if not wrong:
            return None
        return f"line {command.line}: $ {command.text}\n{'; '.join(wrong)}\n--- it printed:\n{text}"

    def _environ(self) -> dict[str, str]:
        """Nothing of the tests' own surroundings but where programs are."""
        path = (str(self._bin), str(Path(sys.executable).parent), os.environ["PATH"])
        return {
            "PATH": ":".join(path),
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder.parent),
            "LANG": "C.UTF-8",
            "COLUMNS": "120",
            "NO_COLOR": "1",
            "SERINUS_ADMIN": f"http://127.0.0.1:{self._words['9090']}",
        }


def _fits(shown: str, said: str, *, whole: bool) -> bool:
    """Whether this was printed, blanks aside; `…` is anything."""
    parts = [r"\s+".join(map(re.escape, part.split())) for part in shown.split("…")]
    pattern = r"[\s\S]*?".join(rf"\s*{part}\s*" for part in parts)
    return bool(re.fullmatch(pattern, said.strip()) if whole else re.search(pattern, said))
