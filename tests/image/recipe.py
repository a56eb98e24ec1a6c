"""The Dockerfile, carried out in a folder: the same commands, without an engine, a base image or root.

What a base image brings (packages, users) is left out; all else runs as it is written, with /opt, /src and so on below
the folder. So a lock, a file or an option that is wrong in the Dockerfile is wrong here.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dockerfile

ROOT = Path(__file__).parents[2]
# A path of the image's own, where a word begins with it or a `KEY=` or `:` stands before.
_OURS = re.compile(r"(?<![\w.$}])/(?=(?:opt|src|etc/serinus|var/lib/serinus)\b)")
_OF_THE_BASE = ("apt-get ", "groupadd ", "useradd ", "install ", "rm -rf /var/lib/apt/")


class Recipe:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.stages = stages(ROOT / "Dockerfile")
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SERINUS"))}
        (folder / "bin").mkdir()
        base = Path(sys._base_executable).resolve()
        (folder / "bin/python3").symlink_to(base)
        self.environ |= {"PATH": f"{folder}/bin:{os.environ['PATH']}", "TMPDIR": str(folder), "PIP_COMPILE": "0"}

    def here(self, text: str) -> str:
        """A path of the image, or a command that names some, in the folder."""
        text = text.replace("--no-cache-dir ", "")  # which saves room in a layer, and costs time here
        return _OURS.sub(f"{self.folder}/", text).replace("/usr/bin/python3", str(self.folder / "bin/python3"))

    def build(self) -> None:
        """All stages. What is not copied from one to the last is gone afterwards."""
        for stage in self.stages:
            self._carry_out(stage)
        for left in ("src", "opt/build", "opt/wheels"):
            shutil.rmtree(self.folder / left)

    def installed(self) -> set[str]:
        """The names of the packages in the environment."""
        (site,) = (self.folder / "opt/serinus/lib").glob("python3.*/site-packages")
        return {path.name.split("-")[0].lower() for path in site.glob("*.dist-info")}

    def _carry_out(self, stage: list[dockerfile.Command]) -> None:
        where = self.folder
        for command in stage:
            match command.cmd:
                case "WORKDIR":
                    where = Path(self.here(command.value[0]))
                    where.mkdir(parents=True, exist_ok=True)
                case "COPY" if any(flag.startswith("--from=") for flag in command.flags):
                    *sources, target = map(self.here, command.value)
                    assert [source for source in sources if not Path(source).exists()] == []
                    assert sources == [target], "the environment's paths are in it: it cannot move"
                case "COPY":
                    self._copy(*command.value, where=where)
                case "RUN":
                    for each in re.split(r"\s*&&\s*", command.value[0]):
                        if not each.startswith(_OF_THE_BASE):
                            self._run(each, where)
                case "ENV":
                    pairs = zip(command.value[::2], command.value[1::2], strict=True)
                    for name, value in pairs:
                        self.environ[name] = self.here(value).replace("$PATH", self.environ["PATH"])

    def _run(self, command: str, where: Path) -> None:
        done = subprocess.run(
            self.here(command), shell=True, cwd=where, env=self.environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    def _copy(self, *paths: str, where: Path) -> None:
        *sources, target = paths
        for source in sources:
            there = ROOT / source
            if there.is_dir():  # its contents, as Docker does it
                shutil.copytree(there, where / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(there, where / target)

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if not path.is_dir()}


def stages(path: Path) -> list[list[dockerfile.Command]]:
    found: list[list[dockerfile.Command]] = []
    for command in dockerfile.parse_file(str(path)):
        if command.cmd == "FROM":
            found.append([])
        found[-1].append(command)
    return found
