"""The documents, and how one is played."""

from tests.docs.blocks import Block, commands
from tests.docs.scene import ROOT, Scene

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


async def play(scene: Scene, page: list[Block]) -> None:
    """Raises NotAsShown."""
    await scene.open()
    for block in page:
        match block.kind:
            case "console":
                for command in commands(block):
                    await scene.run(command)
            case "python":
                await scene.snippet(block)
            case "yaml" if block.file_name:
                await scene.write(block)
