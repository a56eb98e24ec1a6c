"""Commands of the documents need bash, curl, jq and openssl. Where one is missing the tests that run any are not
collected; CI installs them.
"""

import shutil

NEEDED = ("bash", "curl", "jq", "openssl")
collect_ignore = [] if all(map(shutil.which, NEEDED)) else ["test_pages.py", "test_scene.py"]
