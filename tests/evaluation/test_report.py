"""The report as a page: complete, self-contained, safe, and in a browser."""

import html
import html.parser
import re
import shutil
import subprocess

import evaluated
import numpy as np
import pytest

from ssd_tf.evaluation import analysis, evaluate
from ssd_tf.evaluation.metrics import worst_images
from ssd_tf.evaluation.report import charts
from ssd_tf.evaluation.report import page as report
from ssd_tf.evaluation.report import pictures as report_images
from ssd_tf.multibox.boxes import clip

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = '<script>alert("x")</script>'
VOID = {"meta", "link", "img", "br"}


def results(images, names=evaluated.NAMES, anchors=None, samples=50):
    metrics, judged = evaluate.measure(images, names)
    metrics |= analysis.analyse(
        images, judged, names, 0.5, (300, 300), anchors, samples
    )
    metrics |= {
        "class_names": list(names),
        "matching_threshold": 0.5,
        "ground_truth_sha256": "f00",
        "model": {"kind": "checkpoint", "checkpoint": "runs/a/ckpt-7"},
        "data": {"split": "test", "manifest_sha256": "cafe"},
    }
    metrics["model"]["input_size"] = (300, 300)
    return metrics, judged


def page(images, names=evaluated.NAMES, pictures=None, **options):
    metrics, judged = results(images, names, **options)
    pictures = pictures or report.Pictures((), ())
    return report.render(metrics, judged, pictures, ["eval_ssd.py", "--a=b c"])


def drawn(images, count=2, names=evaluated.NAMES):
    """The first images, drawn on grey."""
    metrics, _ = results(images, names)
    chosen = analysis.rank(images, metrics["per_class"], names)[:count]
    grey = {x.source_id: np.full((120, 160, 3), 128, np.uint8) for x in images}
    return report_images.draw_all(grey, images, chosen, names)


class Checker(html.parser.HTMLParser):
    """Tags in balance, and everything that a browser would fetch."""

    def __init__(self, text):
        super().__init__()
        self.open, self.fetched, self.tags, self.texts = [], [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.fetched += [
            value
            for name, value in attributes
            if name in ("src", "href", "srcset", "xlink:href")
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_the_page_has_everything_and_fetches_nothing():
    images = evaluated.random_images(2, count=30)
    anchors = np.array([[0, 0, 0.5, 0.5], [0.2, 0.2, 0.8, 0.9]])
    text = page(
        images,
        anchors=anchors,
        pictures=report.Pictures(drawn(images), drawn(images, 1)),
    )
    checker = Checker(text)
    assert all(x.startswith("data:") for x in checker.fetched), checker.fetched
    assert "http" not in re.sub(r"data:image/jpeg;base64,[^\"]*", "", text)
    assert "url(" not in text and "@import" not in text
    for words in (
        *("VOC07 mAP", "COCO AP", "localisation", "Worst images"),
        *("Best images", "Anchors", "Sizes", "cafe", "f00", "tensorflow"),
        *(*evaluated.NAMES, "eval_ssd.py '--a=b c'", "runs/a/ckpt-7"),
    ):
        assert any(words in x for x in checker.texts), words
    # Overlaps, and a curve and a calibration of each class; the error bars.
    assert checker.tags.count("svg") == 1 + 2 * 3 + 1
    assert checker.tags.count("img") == 3
    assert "nan" not in " ".join(checker.texts).lower().split()


@pytest.mark.parametrize(
    "images",
    [
        [evaluated.image()],
        [evaluated.image([([0, 0, 9, 9], 0.9, 1)])],
        [evaluated.image(truth=[([0, 0, 9, 9], 1)])],
    ],
    ids=["nothing", "no ground truth", "no detections"],
)
def test_pages_of_little(images):
    for samples in (0, 20):
        Checker(page(images, samples=samples))


def test_names_from_files_are_text():
    names = (EVIL, "a & b", "c")
    images = evaluated.random_images(0)
    images = [x._replace(source_id=EVIL) for x in images]
    pictures = report.Pictures(drawn(images, 1, names), ())
    text = page(images, names, pictures)
    assert EVIL not in text
    checker = Checker(text)
    assert checker.tags.count("script") == 1
    assert any(EVIL in x for x in checker.texts)


def test_a_curve_is_drawn_where_it_is():
    chart = str(
        charts.line_chart(
            "t", "x", "y", [charts.Line([0, 1], [0, 1], dots=True)]
        )
    )
    dots = re.findall(r'class="dot" cx="([\d.]+)" cy="([\d.]+)"', chart)
    (x0, y0), (x1, y1) = [(float(x), float(y)) for x, y in dots]
    assert x1 - x0 == y0 - y1 == 200  # y grows downwards


def test_a_curve_of_many_points_is_short_and_keeps_its_ends():
    x = np.linspace(0, 1, 100_000)
    line = charts.Line(x, 1 - x)
    chart = str(charts.line_chart("t", "x", "y", [line]))
    (points,) = re.findall(r'points="([^"]*)"', chart)
    points = points.split()
    assert 300 < len(points) < 2000
    assert points[0] == "34.0,8.0" and points[-1] == "234.0,208.0"


def test_bars_are_as_long_as_their_values():
    chart = str(
        charts.bar_chart("t", [("a", 1.0, ""), ("b", 0.5, ""), ("c", -1.0, "")])
    )
    lengths = [float(x) for x in re.findall(r'width="([\d.]+)"', chart)]
    assert lengths[1] == lengths[0] / 2 > 0 == lengths[2]
    no_cost = charts.bar_chart("t", [("a", 0.0, "")])
    assert 'width="0.0"' in no_cost


def test_pictures_show_right_wrong_and_missed():
    image = evaluated.image(
        [([10, 10, 40, 40], 0.9, 1), ([60, 60, 90, 90], 0.8, 2)],
        [([10, 10, 40, 40], 1), ([10, 60, 40, 90], 3)],
    )
    per_class = {"cat": {"best_f1": None}, "dog": {"best_f1": None}}
    per_class["cow"] = {"best_f1": None}
    (judgement,) = analysis.rank([image], per_class, evaluated.NAMES)
    assert (judgement.num_right, judgement.num_wrong) == (1, 2)
    assert judgement.f1 == pytest.approx(2 / 4)
    assert judgement.reason == "cow missed, dog where nothing is"
    pixels = np.zeros((100, 100, 3), np.uint8)
    found = report_images.draw(pixels, image, judgement, evaluated.NAMES)
    assert found.caption == "F1 0.50: 1 right, 1 wrong, 1 missed"
    colors = _colors(found.data_uri)
    for place, color in (
        ((39, 25), report_images.RIGHT),
        ((89, 75), report_images.WRONG),
        ((39, 75), report_images.MISSED),
    ):
        # JPEG blurs the colours of a line of one pixel.
        hue = colors[place].astype(int)
        assert hue.argmax() == np.argmax(color) and hue.max() > 60


def _colors(data_uri):
    import base64
    import io

    from PIL import Image

    data = base64.b64decode(data_uri.partition(",")[2])
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def test_the_worst_come_first():
    box = [10, 10, 40, 40]
    away = [60, 60, 90, 90]
    perfect = evaluated.image([(box, 0.9, 1)], [(box, 1)])
    half = evaluated.image([(box, 0.9, 1)], [(box, 1), (away, 1)])
    wrong = evaluated.image([(away, 0.9, 1)], [(box, 1)])
    worse = evaluated.image([(away, 0.9, 1)] * 2, [(box, 1)])
    empty = evaluated.image()
    images = [perfect, wrong, half, worse, empty]
    metrics, _ = results(images)
    ranked = analysis.rank(images, metrics["per_class"], evaluated.NAMES)
    assert [each.index for each in ranked][:3] == [3, 1, 2]
    assert {each.index for each in ranked[3:]} == {0, 4}


def test_the_best_show_what_was_found():
    box, other = [10, 10, 40, 40], [60, 60, 90, 90]
    one = evaluated.image([(box, 0.9, 1)], [(box, 1)])
    two = evaluated.image(
        [(box, 0.9, 1), (other, 0.9, 1)], [(box, 1), (other, 1)]
    )
    half = evaluated.image([(box, 0.9, 1)], [(box, 1), (other, 1)])
    wrong = evaluated.image([(other, 0.9, 1)], [(box, 1)])
    images = [evaluated.image(), half, one, wrong, two, evaluated.image()]
    metrics, _ = results(images)
    ranked = analysis.rank(images, metrics["per_class"], evaluated.NAMES)
    worst = worst_images.worst(ranked, 5)
    assert [each.index for each in worst] == [3, 1]
    assert [each.index for each in worst_images.best(ranked, 5)] == [4, 2, 1]
    assert [each.index for each in worst_images.best(ranked, 5, worst)] == [
        4,
        2,
    ]
    assert [each.index for each in worst_images.best(ranked, 1)] == [4]


def test_what_counts_neither_way_is_grey():
    image = evaluated.image(
        [([60, 60, 90, 90], 0.9, 1), ([10, 10, 40, 40], 0.8, 1)],
        [([60, 60, 90, 90], 1), ([10, 10, 40, 40], 1)],
        difficult=[True, False],
    )
    metrics, _ = results([image])
    (judgement,) = analysis.rank([image], metrics["per_class"], evaluated.NAMES)
    np.testing.assert_array_equal(judgement.skipped, [True, False])
    pixels = np.full((100, 100, 3), 255, np.uint8)
    found = report_images.draw(pixels, image, judgement, evaluated.NAMES)
    assert found.caption == "F1 1.00: 1 right, 0 wrong, 0 missed"
    colors = _colors(found.data_uri).astype(int)
    assert np.ptp(colors[89, 75]) < 30 and colors[89, 75].max() < 200
    assert colors[39, 25].argmax() == 1


def test_an_image_that_is_not_there_is_told_of():
    image = evaluated.image(
        truth=[([10, 10, 400_000, 40], 1)], size=(800_000, 100)
    )
    metrics, _ = results([image])
    ranked = analysis.rank([image], metrics["per_class"], evaluated.NAMES)
    (found,) = report_images.draw_all({}, [image], ranked, evaluated.NAMES)
    assert found.caption.endswith("1 missed, image not read")
    assert (found.width, found.height) == (1, 640)
    other = {image.source_id: np.zeros((9, 9, 3), np.uint8)}
    assert report_images.draw_all(other, [image], ranked, evaluated.NAMES) == [
        found
    ]


def test_a_matrix_of_many_classes_is_of_the_most_confused():
    names = [f"class {k}" for k in range(1, 601)]
    counts = np.diag(np.full(601, 9))
    counts[0, 0] = 0
    counts[7, 300] = counts[300, 600] = 5  # the most confused
    counts[500, 0] = counts[0, 501] = 50  # missed, and found on nothing
    found = report._confusion(
        {"classes": ["background", *names], "counts": counts.tolist()}
    )
    assert len(found["rows"]) == len(found["names"]) == 40
    assert found["left_out"] == 561
    assert found["names"][0] == "background"
    assert {"class 7", "class 300", "class 600"} <= {*found["names"]}
    place = found["names"].index
    row = found["rows"][place("class 7")]["cells"]
    assert row[place("class 300")] == (5, 5 / 14)
    few = {"classes": ["background", "a"], "counts": [[0, 1], [2, 3]]}
    assert report._confusion(few)["left_out"] == 0


def test_large_pictures_are_reduced():
    image = evaluated.image(truth=[([0, 0, 500, 999], 1)], size=(1000, 2000))
    metrics, _ = results([image])
    (judgement,) = analysis.rank([image], metrics["per_class"], evaluated.NAMES)
    pixels = np.zeros((1000, 2000, 3), np.uint8)
    found = report_images.draw(pixels, image, judgement, evaluated.NAMES)
    assert (found.width, found.height) == (640, 320)
    assert np.all(clip(image.truth.boxes) <= 1)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_sorts_and_does_not_complain(tmp_path):
    images = evaluated.random_images(2, count=30)
    text = page(images, pictures=report.Pictures(drawn(images), ()))
    click = """<script>
const heads = [...document.querySelectorAll("table")[0].tHead.rows[0].cells];
heads[1].firstChild.click();
const rows = () => [...document.querySelectorAll("table")[0].tBodies[0].rows];
const boxes = () => rows().map((row) => row.cells[1].textContent).join(",");
const down = boxes();
heads[1].firstChild.click();
document.title = "down " + down + " up " + boxes() + " " + heads[1].ariaSort
  + " wide " + (document.documentElement.scrollWidth > innerWidth)
  + " of " + innerWidth;
</script></body>"""
    phone = html.escape(text.replace("</body>", click))
    path = tmp_path / "page.html"
    # No window is that narrow; a frame is.
    path.write_text(f"""<iframe style="width: 390px; height: 800px; border: 0"
onload="document.title = this.contentDocument.title" srcdoc="{phone}">
</iframe>""")
    done = subprocess.run(
        [
            *(BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.findall(r"<title>(.*?)</title>", done.stdout)[0]
    metrics, _ = results(images)
    counts = sorted(
        (x["ground_truth"] for x in metrics["per_class"].values()),
        reverse=True,
    )
    down, up = (",".join(map(str, x)) for x in (counts, counts[::-1]))
    # On a phone nothing but the tables, in their own frames, is too wide.
    assert title == f"down {down} up {up} ascending wide false of 390"
