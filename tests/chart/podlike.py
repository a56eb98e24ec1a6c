"""The folders of a pod as the kubelet writes them, inside of a test's own, and the configuration for them."""

from itertools import count
from pathlib import Path

from tests.chart.rendering import Objects, config_text, pod

_numbers = count(1)


def mount(folder: Path, files: dict[str, str], mode: int) -> None:
    """Put all files in place at once: a new folder, and one rename of the link that all others go by."""
    version = folder / f"..2026_11_21_{next(_numbers)}"
    version.mkdir(parents=True)
    for name, text in files.items():
        (version / name).write_text(text)
        (version / name).chmod(mode)
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").rename(folder / "..data")
    for name in files:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")


def mount_config(folder: Path, rendered: Objects, upstream: str) -> Path:
    """The ConfigMap, for this machine: other folders, free ports, and the upstream at `upstream`. Its file."""
    text = config_text(rendered)
    for there, here in {
        "/run/secrets": str(folder / "secrets"),
        "/var/lib/serinus": str(folder / "state"),
        "0.0.0.0:8080": "127.0.0.1:0",
        "0.0.0.0:9090": "127.0.0.1:0",
        "https://api.openai.com/v1": upstream,
    }.items():
        assert there in text
        text = text.replace(there, here)
    (found,) = (volume["configMap"] for volume in pod(rendered)["volumes"] if volume["name"] == "config")
    mount(folder / "config", {"serinus.yaml": text}, found.get("defaultMode", 0o644))
    return folder / "config" / "serinus.yaml"


def mount_secret(folder: Path, rendered: Objects, name: str, files: dict[str, str]) -> None:
    (found,) = (
        volume["secret"] for volume in pod(rendered)["volumes"] if volume.get("secret", {}).get("secretName") == name
    )
    mount(folder / "secrets" / name, files, found["defaultMode"])
