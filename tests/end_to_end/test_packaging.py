"""What `pip install .` brings: ours as ssd_tf, and no package `datasets`."""

import os
import subprocess
import sys
import zipfile

import pytest
from processes import ROOT

COMMANDS = ("train", "eval", "convert", "export", "detect", "import")
COMMANDS += ("benchmark",)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of this checkout; building it fetches setuptools."""
    folder = tmp_path_factory.mktemp("wheel")
    words = "-m pip wheel --quiet --no-deps --wheel-dir".split()
    subprocess.run([sys.executable, *words, folder, ROOT], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_cannot_overwrite_hugging_faces_datasets(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry_points,) = (x for x in names if x.endswith("entry_points.txt"))
        commands = archive.read(entry_points).decode()
    top_level = {name.split("/")[0] for name in names}
    assert {x for x in top_level if not x.endswith(".dist-info")} == {
        "ssd_tf",
        "train_ssd.py",
        "eval_ssd.py",
    }
    assert "ssd_tf/datasets/formats/voc.py" in names
    assert "ssd_tf/datasets/convert/__main__.py" in names
    assert "ssd_tf/nets/ssd.py" in names
    assert "ssd_tf/evaluation/metrics/voc.py" in names
    assert "ssd_tf/evaluation/report/report.html" in names
    assert "ssd_tf/weights/caffe.py" in names
    for command in COMMANDS:
        assert f"ssd-{command} = " in commands


@pytest.mark.slow
def test_an_installed_copy_works_outside_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    words = "-m pip install --quiet --no-deps --target".split()
    subprocess.run([sys.executable, *words, site, wheel], check=True)
    # Another package of that name, as Hugging Face's.
    (site / "datasets").mkdir()
    (site / "datasets" / "__init__.py").write_text("OWNER = 'other'")
    source = (
        "import datasets, ssd_tf, train_ssd;"
        "from ssd_tf.datasets.formats import voc;"
        "print(datasets.OWNER, ssd_tf.__file__, voc.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=True,
    )
    owner, package, module = done.stdout.split()
    assert owner == "other"
    assert package == str(site / "ssd_tf" / "__init__.py")
    assert module == str(site / "ssd_tf/datasets/formats/voc.py")
