"""The client against a stand-in for TensorFlow Serving, by both protocols."""

import contextlib
import http.server
import io
import itertools
import json
import os
import pathlib
import re
import signal
import socket
import sys
import threading
import time

import hostile_images
import numpy as np
import pytest
import stand_in_server
import tensorflow as tf
from PIL import Image
from processes import (
    SUPPORT,
    TIMEOUT,
    error_of,
    finish,
    free_ports,
    start,
    wait_until,
)
from served import export_saved_model, load_predictor

from ssd_tf import command
from ssd_tf.client import __main__ as client
from ssd_tf.client import bench
from ssd_tf.client import detector as client_detector
from ssd_tf.client import errors as serving_requests
from ssd_tf.client.errors import OUTPUTS, Asked, RequestError
from ssd_tf.command import UserError
from ssd_tf.datasets import images
from ssd_tf.detect import detectors, formats, image_files, inputs, reading
from ssd_tf.detect.reading import Picture

CLIENT = ("-m", "ssd_tf.client")


@pytest.fixture(scope="module")
def export_dir(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "ssd"
    export_saved_model(trained.net, trained.settings.class_names, folder)
    return folder


@pytest.fixture(scope="module")
def expected(export_dir, pictures):
    """What the model itself finds on the pictures."""
    predict, _ = load_predictor(export_dir)
    return predict(pictures)


@pytest.fixture(scope="module")
def server(export_dir):
    """Ports of a stand-in in a process of its own."""
    process = start(SUPPORT / "stand_in_server.py", export_dir, "--name=ssd")
    line = process.stdout.readline()
    assert line, process.communicate()
    yield json.loads(line)
    process.terminate()
    process.communicate()


@pytest.fixture(scope="module")
def served(export_dir):
    """The same model for stand-ins in this process."""
    behaviour = stand_in_server.Behaviour()
    return stand_in_server.Served(export_dir, "ssd", behaviour)


@contextlib.contextmanager
def standing_in(served, **behaviour):
    """Ports of a stand-in that behaves so; see `Behaviour`."""
    served.behaviour = stand_in_server.Behaviour(**behaviour)
    with stand_in_server.running(served) as ports:
        yield ports


@pytest.fixture(params=["rest", "grpc"])
def protocol(request):
    if request.param == "grpc":
        pytest.importorskip("tensorflow_serving.apis")
    return request.param


def connect(protocol, ports, **asked):
    """A client; `ports` by protocol, or one HOST:PORT."""
    if not isinstance(ports, str):
        ports = f"127.0.0.1:{ports[protocol]}"
    return client_detector.connect(Asked(ports, **asked), protocol).client


@pytest.mark.parametrize("name", hostile_images.BAD)
def test_a_bad_image_is_refused_and_the_server_lives(
    server, pictures, expected, protocol, name
):
    asking = connect(protocol, server)
    with pytest.raises(RequestError) as raised:
        asking.predict([hostile_images.BAD[name]])
    assert raised.value.kind == "INVALID_ARGUMENT"
    assert_found(asking.predict(pictures), expected)


def test_every_kind_of_image_is_answered(server, protocol):
    names = sorted(hostile_images.GOOD)
    asking = connect(protocol, server)
    together = asking.predict([hostile_images.GOOD[x] for x in names])
    for index, name in enumerate(names):
        alone = asking.predict([hostile_images.GOOD[name]])
        for key, value in alone.items():
            np.testing.assert_allclose(
                together[key][index], value[0], atol=1e-4, err_msg=name
            )


def error_of_asking(protocol, ports, images=None, **asked):
    """The error of a model that cannot be asked, or of asking it."""
    asking = connect(protocol, ports, **asked)
    with pytest.raises(RequestError) as raised:
        asking.wait_until_available()
        asking.predict(images)
    assert "\n" not in str(raised.value)
    return raised.value


def assert_found(found, expected):
    assert set(found) == set(OUTPUTS) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, atol=1e-6, err_msg=name)


def test_a_server_gives_what_its_model_gives(
    server, pictures, expected, protocol
):
    asking = connect(protocol, server)
    asking.wait_until_available()
    assert expected["num_detections"].min() > 0
    assert_found(asking.predict(pictures), expected)
    assert_found(
        connect(protocol, server, version=1).predict(pictures), expected
    )
    alone = {name: value[:1] for name, value in expected.items()}
    assert_found(asking.predict(pictures[:1]), alone)


def test_rest_keeps_its_connection(served, pictures):
    with standing_in(served) as ports:
        asking = connect("rest", ports)
        asking.wait_until_available()
        for _ in range(3):
            asking.predict(pictures)
        assert served.behaviour.connections == 1
        assert served.behaviour.predictions == 3


@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_busy_server_is_asked_again(
    served, pictures, expected, protocol, code
):
    with standing_in(served, failures=2, failure_code=code) as ports:
        assert_found(connect(protocol, ports).predict(pictures), expected)
        assert served.behaviour.predictions == 3


def test_no_number_of_retries_is_too_large(
    served, pictures, expected, protocol, monkeypatch
):
    monkeypatch.setattr(serving_requests, "BACKOFF", 0.001)
    with standing_in(served, failures=7) as ports:
        asking = connect(protocol, ports, retries=10**9)
        assert_found(asking.predict(pictures), expected)
        assert served.behaviour.predictions == 8


@pytest.mark.parametrize("code", ["DEADLINE_EXCEEDED", "INTERNAL"])
def test_what_was_begun_is_not_asked_again(served, pictures, protocol, code):
    with standing_in(served, failures=1, failure_code=code) as ports:
        error = error_of_asking(protocol, ports, pictures)
        assert error.kind == code
        assert served.behaviour.predictions == 1


def test_retries_have_one_deadline(served, pictures, protocol):
    with standing_in(served, failures=1000, delay=0.3) as ports:
        asking = connect(protocol, ports, timeout=1.0, retries=1000)
        start = time.monotonic()
        with pytest.raises(RequestError) as raised:
            asking.predict(pictures)
        assert time.monotonic() - start < 1.5
        assert raised.value.kind in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
        assert 2 <= served.behaviour.predictions <= 3


def test_an_answer_that_trickles_is_too_late(served, pictures):
    with standing_in(served, trickle=0.01) as ports:
        start = time.monotonic()
        with pytest.raises(RequestError, match="--timeout=0.5: ") as raised:
            connect("rest", ports, timeout=0.5).predict(pictures)
        assert time.monotonic() - start < 2
        assert raised.value.kind == "DEADLINE_EXCEEDED"


def test_an_image_that_ends_a_server_ends_no_other_one(served, pictures):
    with standing_in(served, drops=1) as ports:
        error = error_of_asking("rest", ports, pictures)
        assert error.kind == "BROKEN" and "connection broke" in str(error)
        assert served.behaviour.predictions == 1


def test_by_grpc_neither(pictures):
    """A server that says that it speaks HTTP/2, and is gone."""
    pytest.importorskip("tensorflow_serving.apis")
    settings = bytes(3) + b"\x04" + bytes(5)
    requests = []

    def serve():
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    connection.sendall(settings)
                    received = b""
                    while b"PredictionService/Predict" not in received:
                        received += connection.recv(1 << 20)
                    requests.append(received)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        asking = connect("grpc", f"127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(RequestError, match="connection broke") as raised:
            asking.predict(pictures)
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert raised.value.kind == "BROKEN" and len(requests) == 1


@pytest.mark.parametrize(
    "status, kind, asked",
    [
        (413, "TOO_LARGE", 1),
        (429, "RESOURCE_EXHAUSTED", 2),
        (502, "GATEWAY", 1),
        (503, "UNAVAILABLE", 2),
        (504, "GATEWAY", 1),
    ],
)
def test_what_a_proxy_says(served, pictures, status, kind, asked):
    with standing_in(served, pages=9, page_status=status) as ports:
        with pytest.raises(RequestError) as raised:
            connect("rest", ports, retries=1).predict(pictures)
        assert raised.value.kind == kind
        assert f"HTTP {status}, '<html>Service" in str(raised.value)
        assert served.behaviour.pages == 9 - asked


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_server_that_starts_behind_a_proxy_is_waited_for(served, status):
    with standing_in(served, pages=6, page_status=status) as ports:
        connect("rest", ports, retries=1).wait_until_available(60)
        assert served.behaviour.pages == 0


def test_waiting_ends_although_nobody_answers(protocol):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        asking = connect(protocol, f"127.0.0.1:{port}", timeout=20)
        start = time.monotonic()
        with pytest.raises(RequestError, match="--wait=0.6: 127.0.0.1:"):
            asking.wait_until_available(0.6)
        assert time.monotonic() - start < 3


@pytest.mark.parametrize("retries, asked", [(0, 1), (1, 2)])
def test_a_server_that_stays_busy_is_given_up(
    served, pictures, protocol, retries, asked
):
    with standing_in(served, failures=1000) as ports:
        error = error_of_asking(protocol, ports, pictures, retries=retries)
        assert error.kind == "UNAVAILABLE" and "queue" in str(error)
        assert served.behaviour.predictions == asked


def test_a_model_that_is_loading_is_waited_for(
    served, pictures, expected, protocol
):
    with standing_in(served, loading_answers=3) as ports:
        asking = connect(protocol, ports)
        with pytest.raises(RequestError, match="version 1: LOADING"):
            asking.wait_until_available()
        asking.wait_until_available(seconds=60)
        assert_found(asking.predict(pictures), expected)


def test_a_server_that_starts_late_is_waited_for(served, pictures, tmp_path):
    (port,) = free_ports(1)
    (tmp_path / "a.jpg").write_bytes(pictures[0])
    flags = (f"--server=127.0.0.1:{port}", "--wait=120", "--min_score=0")
    process = start(*CLIENT, tmp_path, *flags)
    served.behaviour = stand_in_server.Behaviour()
    with stand_in_server.running(served, rest_port=port):
        assert "on 1 images (0 not readable)" in finish(process)


@pytest.mark.parametrize(
    "asked, kind, message",
    [
        (
            {"model_name": "dog"},
            "NOT_FOUND",
            "--model_name=dog: .* any versions of model dog",
        ),
        ({"version": 7}, "NOT_FOUND", "--version .* find version 7 of"),
        (
            {"signature_name": "cat"},
            "SIGNATURE",
            "--signature_name=cat: .* image_bytes, serving_default",
        ),
        (
            {"signature_name": "image_tensor"},
            "SIGNATURE",
            "takes input_tensor DT_UINT8, not encoded images alone; choose",
        ),
        (
            {"signature_name": "image_bytes_filtered"},
            "SIGNATURE",
            "max_detections DT_INT32 and score_threshold DT_FLOAT, not",
        ),
    ],
)
def test_what_the_server_does_not_have(server, protocol, asked, kind, message):
    error = error_of_asking(protocol, server, **asked)
    assert error.kind == kind
    assert re.search(message, str(error))


def test_requests_name_their_signature(server, pictures, protocol):
    asking = connect(protocol, server, signature_name="cat")
    with pytest.raises(RequestError, match='"cat" not found'):
        asking.predict(pictures)


def test_a_model_that_is_no_detector(pictures, tmp_path, protocol):
    model = tf.Module()
    model.size = tf.function(
        lambda image_bytes: {"size": tf.strings.length(image_bytes)},
        [tf.TensorSpec([None], tf.string, "image_bytes")],
    )
    tf.saved_model.save(model, str(tmp_path / "1"), model.size)
    behaviour = stand_in_server.Behaviour()
    served = stand_in_server.Served(tmp_path, "ssd", behaviour)
    message = "serving_default: does not answer with detection_boxes"
    with standing_in(served) as ports:
        error = error_of_asking(protocol, ports)
        assert error.kind == "SIGNATURE" and message in str(error)
        if protocol == "rest":
            with pytest.raises(RequestError, match="does not answer with"):
                connect(protocol, ports).predict(pictures)


def test_a_server_that_is_down(protocol):
    (port,) = free_ports(1)
    error = error_of_asking(protocol, f"127.0.0.1:{port}", retries=1)
    assert error.kind == "UNREACHABLE"
    assert f"--server=127.0.0.1:{port}: " in str(error)
    assert "Connection refused" in str(error) and "--wait" in str(error)


def test_a_host_without_address(protocol):
    error = error_of_asking(protocol, "nohost.invalid:8501", retries=0)
    assert error.kind == "UNREACHABLE"
    assert "--server=nohost.invalid:8501: " in str(error)


def test_the_port_of_the_other_protocol(server, protocol):
    other = {"rest": "grpc", "grpc": "rest"}[protocol]
    if other not in server:
        pytest.skip("tensorflow-serving-api is not installed")
    error = error_of_asking(protocol, f"127.0.0.1:{server[other]}")
    assert error.kind == "PROTOCOL"
    assert f"ask with --protocol={other}" in str(error)


def test_an_answer_that_comes_too_late(served, pictures, protocol):
    with standing_in(served, delay=600) as ports:
        error = error_of_asking(protocol, ports, pictures, timeout=0.5)
        assert error.kind == "DEADLINE_EXCEEDED"
        assert "--timeout=0.5: " in str(error)
        assert served.behaviour.predictions == 1


@pytest.mark.parametrize(
    "status, body",
    [(200, "<html>"), (404, "<html>"), (200, "{}"), (200, "[]"), (500, "{}")],
)
def test_an_answer_of_another_server(status, body):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        error = error_of_asking("rest", f"127.0.0.1:{other.server_port}")
        other.shutdown()
    assert error.kind == "PROTOCOL"
    assert f"not as TensorFlow Serving does (HTTP {status}, " in str(error)
    assert "8501" in str(error)


def test_more_images_than_the_server_takes(served, pictures, protocol):
    with standing_in(served, max_batch_size=2) as ports:
        error = error_of_asking(protocol, ports, pictures)
        assert error.kind == "TOO_LARGE"
        assert "--batch_size" in str(error) and "Task size 3" in str(error)
        # It is not taken for an image that cannot be decoded.
        with pytest.raises(RequestError):
            asking(connect(protocol, ports)).detect(items(pictures))


PIXELS = np.zeros((1, 1, 3), np.uint8)


def items(encoded):
    return [
        Picture(f"{k}.jpg", "", str(k), PIXELS, each, each)
        for k, each in enumerate(encoded)
    ]


def asking(client):
    """The detector of a client."""
    return client_detector.ServerDetector(
        lambda batch: client.predict(batch["image"]),
        detectors.ENCODED,
        {},
        client=client,
    )


def test_an_image_that_the_server_cannot_decode(
    served, pictures, expected, protocol
):
    batch = items([pictures[0], b"no image", *pictures[1:]])
    with standing_in(served) as ports:
        found = asking(connect(protocol, ports)).detect(batch)
        assert served.behaviour.predictions == 1 + len(batch)
    error = found.pop(1)
    assert isinstance(error, RequestError)
    assert "INVALID_ARGUMENT: " in str(error)
    assert len(found) == 3
    for index, each in enumerate(found):
        count = expected["num_detections"][index]
        for name in ("boxes", "scores", "classes"):
            value = expected[f"detection_{name}"][index][:count]
            np.testing.assert_allclose(getattr(each, name), value, atol=1e-6)


def test_a_broken_model_is_not_blamed_on_images(served, pictures):
    """REST has one status for what is wrong with either."""
    code = "FAILED_PRECONDITION"
    with standing_in(served, failures=1000, failure_code=code) as ports:
        with pytest.raises(RequestError, match="queue"):
            asking(connect("rest", ports)).detect(items(pictures))


def test_images_that_are_refused_for_reasons_of_their_own():
    class Refusing:
        def predict(self, encoded):
            said = encoded[0].decode()
            raise RequestError("INVALID_ARGUMENT", said, Asked("host:1"))

    errors = asking(Refusing()).detect(items([b"a", b"b"]))
    assert [str(error)[-1] for error in errors] == ["a", "b"]


@pytest.fixture(scope="module")
def folder(pictures, tmp_path_factory):
    """A good JPEG, one lying on its side, a broken one, one far too large."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "a.jpg").write_bytes(pictures[0])
    with Image.open(io.BytesIO(pictures[1])) as image:
        exif = image.getexif()
        exif[0x0112] = 6  # turn a quarter clockwise to see it upright
        image.save(folder / "b.JPG", "JPEG", exif=exif, quality=95)
    (folder / "c.jpg").write_bytes(pictures[2][:500])
    # More than an export decodes; 65 kB.
    Image.new("L", (8200, 8200)).save(folder / "d.png")
    (folder / "notes.txt").write_text("not a picture")
    return folder


def test_the_command_draws_writes_and_counts(
    server, export_dir, trained, folder, tmp_path, protocol
):
    output = finish(
        start(
            *CLIENT,
            folder,
            tmp_path.with_name("no.jpg"),
            f"--server=127.0.0.1:{server[protocol]}",
            f"--protocol={protocol}",
            f"--labels={export_dir / '1/assets/labels.txt'}",
            f"--output_dir={tmp_path}",
            *("--min_score=0.2", "--max_image_megapixels=100"),
        )
    )
    for words in ("c.jpg: ", "d.png: .* 67108864 pixels", "no.jpg: No such"):
        assert re.search(f"not readable: .*{words}", output)
    assert f"on 2 images (3 not readable) in {tmp_path}" in output
    names = {"a.jpg", "b.JPG", formats.JSON_FILE}
    assert {path.name for path in tmp_path.iterdir()} == names
    result = json.loads((tmp_path / formats.JSON_FILE).read_text())
    assert tuple(result["class_names"]) == trained.settings.class_names
    predict, class_names = load_predictor(export_dir)
    for entry, name in zip(result["images"], ("a.jpg", "b.JPG"), strict=True):
        assert entry["file"] == str(folder / name)
        picture = images.prepare((folder / name).read_bytes())
        size = (picture.height, picture.width)
        assert (entry["height"], entry["width"]) == size
        with Image.open(tmp_path / name) as drawn:
            assert drawn.format == "JPEG" and drawn.size == size[::-1]
        assert_entry(entry, predict([picture.encoded]), class_names)


def assert_entry(entry, found, class_names):
    """An image's detections in the JSON file are those of the model."""
    detections = entry["detections"]
    assert len(detections) == found["num_detections"][0] > 0
    for index, each in enumerate(detections):
        assert set(each) == {"class", "name", "score", "box"}
        assert each["class"] == found["detection_classes"][0, index]
        assert each["name"] == class_names[each["class"] - 1]
        for key, name in (("score", "scores"), ("box", "boxes")):
            value = found[f"detection_{name}"][0, index]
            np.testing.assert_allclose(each[key], value, atol=2e-6)


def test_without_labels_classes_are_numbers(server, folder):
    output = finish(
        start(
            *CLIENT,
            folder / "a.jpg",
            f"--server=127.0.0.1:{server['rest']}",
            "--min_score=0.01",
        )
    )
    line = output.splitlines()[0]
    number = r"-?\d+\.\d+"
    box = rf"\[{number}, {number}, {number}, {number}\]"
    assert re.match(rf".*a\.jpg: \d 0\.\d\d {box}(, \d 0\.\d\d {box})*", line)


REFUSING = """
import sys

class Refusing:
    def find_spec(self, name, *_):
        if is_refused(name.split(".")[0]):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refusing())
from ssd_tf import command
from ssd_tf.client import __main__ as client

command.run(
    client.main, client.ClientOptions, "", sys.argv, takes_arguments=True
)
heavy = ("tensorflow", "keras", "tensorflow_serving", "grpc")
print([name for name in heavy if name in sys.modules])
"""
# What docs/serving.md tells to install, and what rich brings along.
LIGHT = {"ssd_tf", "numpy", "PIL", "absl", "rich", "urllib3"}
LIGHT |= {"markdown_it", "mdurl", "pygments"}
LIGHT |= sys.stdlib_module_names


def refusing(condition):
    return f"def is_refused(name): return {condition}\n{REFUSING}"


def test_rest_needs_no_tensorflow(server, folder, tmp_path, run_script):
    output = run_script(
        refusing(f"name not in {LIGHT!r}"),
        folder / "a.jpg",
        f"--server=127.0.0.1:{server['rest']}",
        f"--output_dir={tmp_path}",
    )
    assert "on 1 images (0 not readable)" in output
    assert output.splitlines()[-1] == "[]"
    assert (tmp_path / "a.jpg").exists()


def test_rest_does_not_look_for_tensorflow(server, folder, run_script):
    flag = f"--server=127.0.0.1:{server['rest']}"
    output = run_script(refusing(False), folder / "a.jpg", flag)
    assert output.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "refused, message",
    [
        (("tensorflow_serving",), r"pip install 'ssd-tf\[serving\]'"),
        (("tensorflow",), "--protocol=grpc: needs TensorFlow"),
    ],
)
def test_what_grpc_needs(folder, refused, message):
    source = refusing(f"name in {refused!r}")
    flags = ("--server=127.0.0.1:1", "--protocol=grpc")
    assert re.search(message, error_of("-c", source, folder / "a.jpg", *flags))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["{folder}"], "--server is missing"),
        (["--server=127.0.0.1:{port}"], "no image: name images or folders"),
        (["{empty}", "--server=127.0.0.1:{port}"], "no image in it (.bmp"),
        (["{folder}", "--server=localhost"], "expected HOST:PORT"),
        (["{folder}", "--server=localhost:70000"], "expected HOST:PORT"),
        (["{folder}", "--server= localhost:1"], "expected HOST:PORT"),
        (
            ["{folder}", "--server=http://localhost:8501/v1"],
            "expected HOST:PORT, such as localhost:8501",
        ),
        (
            ["{folder}", "--server=127.0.0.1:{port}", "--model_name=dog"],
            "--model_name=dog: 127.0.0.1:",
        ),
        (
            ["{folder}/c.jpg", "--server=127.0.0.1:{port}"],
            "no image could be read",
        ),
        (
            ["{folder}/c.jpg", "--server=127.0.0.1:{port}", "--bench"],
            "no image could be read",
        ),
        (
            [
                *("{folder}", "--server=127.0.0.1:{port}"),
                "--output_dir={folder}",
            ],
            "could be drawn over",
        ),
        (
            [
                *("{folder}", "--server=127.0.0.1:{port}"),
                "--output_dir={folder}/..",
            ],
            "could be drawn over",
        ),
        (
            [
                *("{folder}/a.jpg", "--server=127.0.0.1:{port}"),
                "--labels={empty}/../one.txt",
            ],
            "has 1 names, but the model has found class",
        ),
    ],
)
def test_mistakes_are_one_line(server, folder, tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "one.txt").write_text("cat\n")
    values = {"folder": folder, "empty": tmp_path / "empty"}
    words = [x.format(port=server["rest"], **values) for x in arguments]
    assert message in error_of(*CLIENT, *words)
    assert not any((tmp_path / "empty").iterdir())


@pytest.mark.parametrize(
    "server",
    [
        *(":1", "a b:80", " a:1", "a:", "a:0", "a:65536", "a:b", "a/b:1"),
        *("http://a:1", "::1:8501", "[::1:8501", "[a]:1", "a@b:1", "a\n:1"),
        *("a..b:1", "é..x:1", f"{'a' * 64}.de:1"),
    ],
)
def test_what_is_no_server(server):
    with pytest.raises(UserError, match="expected HOST:PORT"):
        serving_requests.split(server)


@pytest.mark.parametrize(
    "host", ["a", "a-b.c_d.de.", "127.0.0.1", "[::1]", "[fe80::1%eth0]", "é.de"]
)
def test_servers(host):
    assert serving_requests.split(f"{host}:8501") == (host, 8501)


def test_same_names_are_numbered(server, folder, tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("A.jpg", "b/a.jpg"):
        (tmp_path / name).write_bytes((folder / "a.jpg").read_bytes())
    sources = [*(folder, tmp_path / "A.jpg", tmp_path / "b/a.jpg")]
    found = client.find([*map(str, sources), str(tmp_path / "b")])
    names = [source.name for source in found]
    assert names == ["a.jpg", "b.JPG", "c.jpg", "d.png", "A_2.jpg", "a_3.jpg"]


def test_names_of_any_bytes(server, folder, tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.jpg"
    with open(path, "wb") as file:
        file.write((folder / "a.jpg").read_bytes())
    with open(os.fsencode(tmp_path) + b"/\xfe.jpg", "wb"):
        pass
    found = tmp_path / "found"
    flags = (f"--server=127.0.0.1:{server['rest']}", f"--output_dir={found}")
    output = finish(start(*CLIENT, tmp_path, *flags))
    assert "\ufffd.jpg: is no image" in output
    (entry,) = json.loads((found / formats.JSON_FILE).read_text())["images"]
    assert entry["file"] == f"{tmp_path}/\ufffd.jpg"
    assert len([*found.iterdir()]) == 2
    assert "\ufffd.jpg: " in finish(start(*CLIENT, tmp_path, flags[0]))


def test_what_is_too_long_for_jpeg_is_drawn_as_png(tmp_path):
    picture = Image.new("RGB", (65_501, 1))
    image_files.save(picture, tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg.png") as drawn:
        assert drawn.size == picture.size
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg.png"]


def test_of_no_image_all_is_read(folder, tmp_path):
    """Of four million megabytes, nothing; no picture is decoded either."""
    film = tmp_path / "film.mp4"
    film.touch()
    os.truncate(film, 1 << 42)
    sources = client.find([str(film), str(folder / "d.png")])
    reader = reading.Reader(lambda *_: None, inputs.Naming())
    bad = [job() for job in reading.read(sources, reader)]
    assert [(each.file, each.reason) for each in bad] == [
        (str(film), "is no image"),
        (
            str(folder / "d.png"),
            "8200 x 8200 are more than 64 million pixels, the limit "
            "(max_image_megapixels)",
        ),
    ]


@pytest.fixture
def three(pictures, tmp_path):
    """A folder of three images, and one for what is found."""
    for index, picture in enumerate(pictures):
        (tmp_path / f"{index}.jpg").write_bytes(picture)
    return tmp_path, tmp_path / "found"


def kept(found):
    """The names of images in detections.json, and of the pictures."""
    entries = json.loads((found / formats.JSON_FILE).read_text())["images"]
    names = [pathlib.Path(entry["file"]).name for entry in entries]
    assert {*names, formats.JSON_FILE} == {x.name for x in found.iterdir()}
    return names


def test_a_failure_keeps_what_was_found(served, three, protocol):
    folder, found = three
    behaviour = {"answers": 2, "failure_code": "INTERNAL"}
    with standing_in(served, **behaviour) as ports:
        error = error_of(
            *(*CLIENT, folder, f"--output_dir={found}", "--batch_size=1"),
            f"--server=127.0.0.1:{ports[protocol]}",
            f"--protocol={protocol}",
        )
    assert "INTERNAL: " in error
    assert f"; what was found until then is in {found}" in error
    assert kept(found) == ["0.jpg", "1.jpg"]


def test_a_failure_at_once_keeps_what_was_there(served, three):
    folder, found = three
    found.mkdir()
    (found / formats.JSON_FILE).write_text("[]")
    with standing_in(served, answers=0, failure_code="INTERNAL") as ports:
        flags = (f"--output_dir={found}", "--batch_size=1")
        server = f"--server=127.0.0.1:{ports['rest']}"
        error = error_of(*CLIENT, folder, *flags, server)
    assert "until then" not in error
    assert [path.name for path in found.iterdir()] == [formats.JSON_FILE]
    assert (found / formats.JSON_FILE).read_text() == "[]"


def test_an_interrupt_keeps_what_was_found(served, three, protocol):
    folder, found = three
    with standing_in(served) as ports:
        process = start(
            *(*CLIENT, folder, f"--output_dir={found}", "--batch_size=1"),
            f"--server=127.0.0.1:{ports[protocol]}",
            *(f"--protocol={protocol}", "--timeout=600"),
        )
        wait_until(lambda: served.behaviour.predictions >= 1, process)
        served.behaviour.delay = 600
        wait_until((found / "0.jpg").exists, process)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (130, "")
    assert f"interrupted; what was found until then is in {found}" in output
    # The second was perhaps under way when the server began to hang.
    assert kept(found) in (["0.jpg"], ["0.jpg", "1.jpg"])
    assert f"on {len(kept(found))} images (0 not readable)" in output


def test_without_images_the_server_is_waited_for(served):
    with standing_in(served, loading_answers=2) as ports:
        server = f"127.0.0.1:{ports['rest']}"
        process = start(*CLIENT, f"--server={server}", "--wait=60")
        assert finish(process) == f"{server}: ssd can be asked\n"
        assert served.behaviour.predictions == 0
    error = error_of(*CLIENT, f"--server={server}", "--wait=0")
    assert "Connection refused" in error


def test_arguments_are_refused_by_commands_that_take_none(capsys):
    with pytest.raises(SystemExit):
        command.run(lambda _: None, client.ClientOptions, "", ["x", "y"])
    assert "unexpected argument 'y'" in capsys.readouterr().err


def test_the_benchmark_prints_its_table(server, folder, protocol):
    output = finish(
        start(
            *CLIENT,
            *(folder / "a.jpg", folder / "c.jpg", "--bench", "--duration=0.2"),
            *("--concurrency=2", f"--protocol={protocol}"),
            f"--server=127.0.0.1:{server[protocol]}",
        )
    )
    assert f"by {protocol}, 2 requests of 1 images at a time" in output
    header, values = (
        re.split(r"\s*[┃│]\s*", line)[1:-1]
        for line in output.splitlines()
        if line[:1] in "┃│"
    )
    assert (
        header
        == "requests,images/s,p50 ms,p90 ms,p95 ms,p99 ms,errors".split(",")
    )
    requests, speed, *percentiles, errors = map(float, values)
    assert requests >= 2 and speed > 0 and errors == 0
    assert percentiles == sorted(percentiles)
    assert "not readable: " in output and "c.jpg" in output


def test_the_benchmark_goes_on_after_errors(served, pictures, protocol):
    with standing_in(served) as ports:
        ask = connect(protocol, ports, retries=0).prepare(pictures)
        ask()
        served.behaviour.failures = bench.WARMUP_REQUESTS + 3
        request = bench.Request(ask, len(pictures))
        result = bench.measure([request], 1, 1.0)
        asked = served.behaviour.predictions
    assert result.errors == {"UNAVAILABLE": 3}
    assert len(result.latencies) == asked - 1 - bench.WARMUP_REQUESTS - 3
    assert result.images == len(pictures) * len(result.latencies) > 0


def test_what_the_benchmark_counts():
    """A clock that ticks when it is read: once a request's start and end."""
    answers = iter(
        [None] * bench.WARMUP_REQUESTS
        + [None, "UNAVAILABLE", None, "NOT_FOUND", "UNAVAILABLE"]
    )
    asked = []

    def request(number):
        def ask():
            asked.append(number)
            kind = next(answers)
            if kind:
                raise RequestError(kind, "", Asked("host:1"))

        return bench.Request(ask, number)

    ticks = itertools.count()
    result = bench.measure(
        [request(2), request(1)], 1, 15, clock=lambda: float(next(ticks))
    )
    # The start, five times (is it over? begun, ended), over, the end.
    assert result.seconds == 17
    assert asked == [2, 1] + [2, 1, 2, 1, 2]
    assert result.latencies.tolist() == [1.0, 1.0]
    assert result.images == 2 + 2
    assert result.errors == {"UNAVAILABLE": 2, "NOT_FOUND": 1}


def test_an_interrupted_benchmark_ends(served, folder):
    with standing_in(served) as ports:
        flags = (
            "--bench",
            "--duration=1e9",
            f"--server=127.0.0.1:{ports['rest']}",
        )
        process = start(*CLIENT, folder / "a.jpg", *flags)
        # Beyond the warm-up of its four threads.
        wait_until(lambda: served.behaviour.predictions > 20, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (1, "error: interrupted\n")


def test_an_interrupted_benchmark_waits_for_no_answer(served, folder, protocol):
    with standing_in(served, delay=600) as ports:
        process = start(
            *(*CLIENT, folder / "a.jpg", "--bench", "--timeout=600"),
            f"--server=127.0.0.1:{ports[protocol]}",
            *(f"--protocol={protocol}", "--concurrency=2"),
        )
        wait_until(lambda: served.behaviour.predictions == 2, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert served.behaviour.predictions == 2
    assert (process.returncode, errors) == (1, "error: interrupted\n")


def test_a_benchmark_without_any_answer_fails(served, folder):
    with standing_in(served, answers=0) as ports:
        server = f"127.0.0.1:{ports['rest']}"
        flags = ("--bench", "--duration=0.2", "--retries=0")
        error = error_of(
            *CLIENT, folder / "a.jpg", f"--server={server}", *flags
        )
    assert error == f"error: --bench: {server} has answered no request"


def test_the_benchmark_holds_few_images(three, monkeypatch, capsys):
    prepared = []

    class Client:
        def prepare(self, encoded):
            prepared.append(encoded)
            return lambda: None

    monkeypatch.setattr(client, "BENCH_BATCHES", 2)
    options = client.ClientOptions("a:1", batch_size=1, duration=0.01)
    client.measure(asking(Client()), client.find([str(three[0])]), options)
    assert [len(each) for each in prepared] == [1, 1]


def test_the_percentiles_of_the_table(capsys):
    sent = [bench.Sent(k / 1000, 2, None) for k in range(101)]
    sent.append(bench.Sent(9.0, 2, "DEADLINE_EXCEEDED"))
    result = bench.summary(sent, seconds=20.0)
    bench.print_table("title", result)
    row = capsys.readouterr().out.splitlines()[-2]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("102", "10.1", "50.0", "90.0", "95.0", "99.0"),
        "DEADLINE_EXCEEDED 1",
    ]


def test_a_table_without_any_answer(capsys):
    sent = [bench.Sent(9.0, 2, "UNAVAILABLE")] * 3
    bench.print_table("title", bench.summary(sent, 1.0))
    row = capsys.readouterr().out.splitlines()[-2]
    assert [cell.strip() for cell in row.split("│")[1:-1]] == [
        *("3", "0.0", "-", "-", "-", "-"),
        "UNAVAILABLE 3",
    ]
