"""These tests need Debian's `chromium`. Where there is none they are not collected; CI installs it."""

import shutil

collect_ignore_glob = [] if shutil.which("chromium") else ["test_*.py"]
