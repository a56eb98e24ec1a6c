"""Every command that a page shows is run, in the page's order, and does what the page says."""

from pathlib import Path

import pytest

from tests.docs.blocks import blocks
from tests.docs.pages import PAGES, play
from tests.docs.scene import NotAsShown, Scene


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
async def test_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path) -> None:
    shown, wrong = blocks(page), ""
    scene = Scene(tmp_path, shown)
    try:
        await play(scene, shown)
    except (NotAsShown, ValueError) as error:
        wrong = f"{page.name}, {error}"
    finally:
        await scene.close()
    if wrong:
        pytest.fail(wrong, pytrace=False)
