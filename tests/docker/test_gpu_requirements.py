"""What the GPU image would install, resolved for its Python without fetching or installing it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from image_steps import pip_settings

REPOSITORY = Path(__file__).parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
# Ubuntu 24.04: Python 3.12 and glibc 2.39.
TARGET = ("--python-version=3.12", "--implementation=cp", "--abi=cp312", "--abi=abi3", "--abi=none")
PLATFORMS = ("any", "linux_x86_64", "manylinux1_x86_64", "manylinux2010_x86_64", "manylinux2014_x86_64")
GLIBC = range(5, 40)

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(0)]


def resolve(folder: Path, *requirements: str) -> dict[str, str]:
    """Versions by name, of wheels alone; of the large ones only the metadata are read."""
    (folder / "pip.conf").write_text(pip_settings()[0])
    env = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    platforms = [*PLATFORMS, *(f"manylinux_2_{minor}_x86_64" for minor in GLIBC)]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--use-feature=fast-deps"),
            *("--target", folder, "--report", folder / "report.json", "--only-binary=:all:", "--quiet", *TARGET),
            *(f"--platform={platform}" for platform in platforms),
            *requirements,
        ],
        env=env | {"PIP_CONFIG_FILE": str(folder / "pip.conf")},
        check=True,
    )
    found = [one["metadata"] for one in json.loads((folder / "report.json").read_text())["install"]]
    return {one["name"].lower().replace("_", "-"): one["version"] for one in found}


def test_the_gpu_image_has_packages_for_its_python_and_the_cuda_of_its_torch(tmp_path: Path) -> None:
    extras = PROJECT["optional-dependencies"]
    try:
        resolve(tmp_path, "--no-deps", *extras["gpu"])
    except subprocess.CalledProcessError:
        pytest.skip(f"no source of packages here has {extras['gpu']}")
    versions = resolve(tmp_path, *PROJECT["dependencies"], *extras["gpu"], *extras["test"])
    assert [f"sglang=={versions['sglang']}"] == extras["gpu"]
    image = re.search(r"^FROM nvidia/cuda:(\d+\.\d+)\.", (REPOSITORY / "docker/Dockerfile").read_text(), re.MULTILINE)
    assert image
    assert versions["cuda-toolkit"].startswith(f"{image[1]}.")
    assert {"torch", "sglang-kernel", "triton"} <= versions.keys()
