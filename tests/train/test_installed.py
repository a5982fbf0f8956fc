"""The installed training package is `datagen_train`; no file of a user and no other package can shadow it."""

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.train.tasks import problems, write_sft

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
SHADOW = "raise SystemExit('a file of the user was imported')\n"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, the wheel built from it, and in `editable/` the wheel of an editable install."""
    folder = tmp_path_factory.mktemp("dist")
    backend = folder / "backend"
    subprocess.run([*PIP, "install", "--target", str(backend), "hatchling", "editables"], check=True)
    env = {**os.environ, "PYTHONPATH": str(backend)}

    def build(kind: str, project: Path, target: Path) -> None:
        code = f"import hatchling.build; hatchling.build.build_{kind}({str(target)!r})"
        subprocess.run([sys.executable, "-c", code], check=True, env=env, cwd=project, stdout=subprocess.DEVNULL)

    build("sdist", ROOT, folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    build("wheel", folder / sdist.name.removesuffix(".tar.gz"), folder)
    build("editable", ROOT, folder / "editable")
    return folder


def install(wheel_folder: Path, env: Path) -> Path:
    """Install a wheel into a new environment that shares the libraries of this one; return its console script."""
    venv.create(env, with_pip=False, symlinks=True)
    (wheel,) = wheel_folder.glob("*.whl")
    pip = [*PIP, "--python", str(env / "bin/python")]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", str(wheel)], check=True)
    site = next(env.glob("lib/python3*/site-packages"))
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(shared))
    other = site / "train"
    other.mkdir()
    (other / "__init__.py").write_text(SHADOW)
    return (env / "bin/datagen").absolute()


def test_sdist_and_wheel_hold_the_package_under_its_own_name(dist: Path) -> None:
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {"datagen_train/cli.py", "datagen/py.typed", "datagen_train/py.typed", "datagen/agents.md"} <= set(names)
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"datagen", "datagen_train"}
    with tarfile.open(sdist) as archive:
        paths = [name.partition("/")[2] for name in archive.getnames()]
    assert {"train/datagen_train/cli.py", "LICENSE", "constraints.txt", "examples/seeds.jsonl"} <= set(paths)
    assert "train/__init__.py" not in paths


@pytest.mark.parametrize(
    ("built", "shadows", "path"),
    [
        pytest.param(".", ("train", "datagen", "random"), "", id="wheel"),
        pytest.param("editable", ("train",), ".", id="editable, PYTHONPATH=."),
    ],
)
def test_files_of_the_user_and_other_packages_do_not_get_in_the_way(
    dist: Path, built: str, shadows: tuple[str, ...], path: str
) -> None:
    datagen = install(dist / built, Path("env"))
    Path("work").mkdir()
    for name in shadows:
        Path("work", f"{name}.py").write_text(SHADOW)
    write_sft(Path("work/sums.jsonl"), problems(0)[:20])
    options = ["-o", "out", "--steps", "1", "--batch-size", "4", "--nproc", "2"]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    env |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": path} if path else {})
    ran = subprocess.run(
        [datagen, "train", "sft", "sums.jsonl", *options], cwd="work", env=env, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert Path("work/out/run/report.json").exists()
    assert "Next: python" not in ran.stderr, "the processes are started as the command was"
