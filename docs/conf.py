"""The documents as a site: `make docs`. They are Markdown that reads well without it, so that nothing here is needed to
read them; what it adds is one order, a search, and a build that fails where a link or an anchor leads nowhere.

Sphinx reads from the repository's top, not from here: pages link to README.md, ARCHITECTURE.md and files of config/.
"""

project = "Serinus"
html_title = "Serinus"
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "docs/decisions/*.md", "bench/README.md", "charts/serinus/README.md"]
exclude_patterns = [".*", "build"]

extensions = ["myst_parser"]
myst_heading_anchors = 4
nitpicky = True
suppress_warnings = [
    "misc.highlighting_failure",  # output that was shortened with `…` is no JSON any more
    "myst.header",  # README begins a level deeper where it is a front page
]

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
