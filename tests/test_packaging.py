"""What lies in the folders is what is installed."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_package_is_installed_and_every_resource_with_it():
    """An editable install finds all folders; a wheel holds only what pyproject.toml names."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (block,) = re.findall(r"^packages = \[\n(.*?)^\]", text, flags=re.DOTALL | re.MULTILINE)
    listed = re.findall(r'"([\w.]+)"', block)
    homes = {"safer_offline": "safer_offline", "datasets": "safer_offline.datasets"}
    homes["cli"] = "safer_offline.cli"
    files = {
        file: ".".join([home, *file.parent.relative_to(ROOT / folder).parts])
        for folder, home in homes.items()
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert sorted(listed) == sorted(set(files.values()))
    # Anything but Python must be named, too.
    (data,) = re.findall(
        r"^\[tool\.setuptools\.package-data\]\n(.*?)^\[", text, flags=re.DOTALL | re.MULTILINE
    )
    suffixes = {*re.findall(r'"\*(\.\w+)"', data), ".py", ".typed"}
    assert [file for file in files if file.suffix not in suffixes] == []
