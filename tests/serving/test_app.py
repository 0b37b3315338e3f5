"""Answers are those of the run; mistakes get one sentence and the right status; nobody else notices them."""

from __future__ import annotations

import base64
import errno
import io
import json
import re
import shutil
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ambiseg.data.batches import Normalization
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import RunConfig
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.methods import build
from ambiseg.methods.ssn import SSNSettings
from ambiseg.networks.settings import UNetSettings
from ambiseg.serving import bodies
from ambiseg.serving.model import Served
from ambiseg.serving.server import names_of

SETTINGS = PredictSettings(score_threshold=None)


def masks_in(answer):
    """The masks of a JSON answer ``(K, H, W)``, and their probabilities."""
    entries = answer.json()["masks"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(entry["png"]))) for entry in entries]
    return np.stack([np.asarray(p) for p in pictures]), [entry["probability"] for entry in entries]


def error_of(answer, status):
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert set(content) == {"error", "request_id"}
    assert content["request_id"] == answer.headers["x-request-id"]
    assert "\n" not in content["error"] and "/tmp" not in content["error"]
    return content["error"]


@pytest.fixture
def body(images, npy):
    return npy(images[0])


def assert_alike(answer, run, image, settings=SETTINGS):
    expected = run.predict_batch([image], settings).masks
    masks, probabilities = masks_in(answer)
    np.testing.assert_array_equal(masks, expected.masks[0].numpy())
    np.testing.assert_allclose(probabilities, expected.weights[0].numpy(), rtol=1e-4)


def test_an_answer_is_the_prediction_of_the_run(client, run, images, npy):
    for image in images:
        answer = client.post("/predict", content=npy(image))
        assert answer.status_code == 200
        assert_alike(answer, run, image)
    content = answer.json()
    assert content["size"] == [16, 16] and content["classes"] == ["background", "foreground"]
    assert content["settings"] == SETTINGS.for_run(run).record() and content["seed"] is None


def test_clients_at_once_each_get_their_own_answer(client_of, served, run, images, npy):
    client = client_of(served, batch_size=4)
    cut = [image[:, : 16 - 4 * (i % 2)] for i, image in enumerate(images)]
    with ThreadPoolExecutor(8) as clients:
        turns = [cut[i % len(cut)] for i in range(32)]
        found = list(clients.map(lambda image: client.post("/predict", content=npy(image)), turns))
    for image, answer in zip(turns, found, strict=True):
        assert_alike(answer, run, image)
    metrics = client.get("/metrics").text
    assert 'ambiseg_requests_total{path="/predict",status="200"} 32.0' in metrics
    assert "ambiseg_batch_images_sum 32.0" in metrics and "ambiseg_queue_images 0.0" in metrics


def test_parameters_choose_what_is_kept(client, run, images, body):
    few = client.post("/predict?top=2", content=body)
    assert_alike(few, run, images[0], replace(SETTINGS, top=2))
    everything = PredictSettings(
        score_threshold=None, probability_threshold=None, duplicate_iou=None, top=None
    )
    assert_alike(client.post("/predict?all=true", content=body), run, images[0], everything)
    fewer = client.post("/predict?samples=3", content=body)
    assert_alike(fewer, run, images[0], replace(SETTINGS, samples=3))


def test_a_form_and_a_zip(client, body):
    plain = client.post("/predict", content=body).json()["masks"]
    form = client.post("/predict", files={"image": ("<b>.exe", body, "text/html")})
    assert form.json()["masks"] == plain
    for ask in ({"params": {"format": "zip"}}, {"headers": {"accept": "application/zip"}}):
        answer = client.post("/predict", content=body, **ask)
        assert answer.headers["content-type"] == "application/zip"
        entries = json.loads(zipfile.ZipFile(io.BytesIO(answer.content)).read("prediction.json"))["masks"]
        assert [entry["probability"] for entry in entries] == [mask["probability"] for mask in plain]


def test_requests_have_an_id(client, body):
    given = client.post("/predict", content=body, headers={"x-request-id": "scan-7.b"})
    assert given.headers["x-request-id"] == given.json()["request_id"] == "scan-7.b"
    ids = [
        client.get("/health", headers={"x-request-id": bad}).headers["x-request-id"]
        for bad in ("<a>", "x" * 65)
    ]
    assert all(len(name) == 32 and name.isalnum() for name in ids) and len(set(ids)) == 2


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("top=x", 'top: .*integer.*, received "x"'),
        ("top=0", 'top: .*greater than or equal to 1, received "0"'),
        ("samples=129", "samples: at most 128, received 129"),
        ("seed=-1", 'seed: .*, received "-1"'),
        ("format=<script>", 'format: .*, received "<script>"'),
        ("topp=3", 'topp: .*, received "3"'),
        ("x" * 5000 + "=3", '^x{80}: .*, received "3"'),
        ("samples=1&samples=2", "samples: received twice, give it once"),
    ],
)
def test_parameters_that_make_no_sense_are_400(client, body, query, sentence):
    answer = client.post(f"/predict?{query}", content=body)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert re.search(sentence, error_of(answer, 400))


def test_images_that_do_not_suit_the_run(client, run, images, npy):
    image = images[0]
    for bad, sentence in (
        (image[:3], "the image has 3 channel(s), the model was trained on 7: "),
        (image * np.float32(np.nan), "the image: 1792 values are NaN or infinite: "),
        (image * 1e4, "the image: its values of channel "),
        (image[:, None], "the image: the array has shape (7, 1, 16, 16), "),
    ):
        assert error_of(client.post("/predict", content=npy(bad)), 422).startswith(sentence)
    small = client.post("/predict", content=npy(image / 1e4))
    assert_alike(small, run, image / np.float32(1e4))
    assert small.json()["warning"].endswith("or predictions may mean nothing")


@pytest.mark.parametrize("extreme", [1e30, -3e38])
def test_a_value_that_is_no_measurement_is_422(client, images, npy, extreme):
    """A single one passes the quantiles of the image."""
    image = images[0].copy()
    image[2, 3, 4] = extreme
    said = error_of(client.post("/predict", content=npy(image)), 422)
    assert said.startswith(
        f"the image holds the value {np.float32(extreme):g}, far outside those of training (mean"
    )


def test_a_model_that_gives_no_numbers_is_422(client_of, run, body, monkeypatch):
    def predict(*args, **options):
        found = type(run.model).predict(run.model, *args, **options)
        return replace(found, scores=found.scores * torch.nan)

    monkeypatch.setattr(run.model, "predict", predict)
    answer = client_of(Served(run, SETTINGS)).post("/predict", content=body)
    assert "the model gives NaN or infinite" in error_of(answer, 422)


def test_health_answers_to_head(client):
    assert client.head("/health").status_code == 200


def test_the_service_answers_to_its_names_only(client_of, served, body):
    client = client_of(served, hosts=names_of("127.0.0.1", "my-pc"))
    for host in ("127.0.0.1:8000", "LocalHost", "[::1]:80", "my-pc", ""):
        assert client.post("/predict", content=body, headers={"host": host}).status_code == 200
    for host in ("evil.example:8000", "127.0.0.1.evil.example", "[::2]"):
        answer = client.post("/predict", content=body, headers={"host": host})
        assert "use one of these addresses" in error_of(answer, 421)


def test_the_working_directory_may_vanish(client_of, tiny_run, tmp_path, run, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "here" / "run")
    monkeypatch.chdir(tmp_path / "here")
    client = client_of(Served(load("run", precision="32", device="cpu"), SETTINGS))
    shutil.rmtree(tmp_path / "here")
    assert client.get("/health").json()["run"] == "run"
    assert client.get("/docs").status_code == 200


def test_bodies_that_are_no_image(client, images, npy):
    assert "empty" in error_of(client.post("/predict"), 400)
    assert "no image" in error_of(client.post("/predict", content=b"hello"), 415)
    assert "cannot be read as npy" in error_of(client.post("/predict", content=npy(images[0])[:400]), 422)
    wrong = client.post("/predict", files={"picture": ("a.npy", npy(images[0]))})
    assert "no file 'image'" in error_of(wrong, 400)
    form = {"content-type": "multipart/form-data; boundary=x"}
    for content in (
        b"no form",
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nab',
    ):
        assert "form" in error_of(client.post("/predict", content=content, headers=form), 400)
    lone = {"content-type": "multipart/form-data"}
    assert "form" in error_of(client.post("/predict", content=b"x", headers=lone), 400)


@pytest.mark.parametrize("charset", ["punycode", "undefined", "idna", "utf-7", "x" * 1000])
def test_the_charset_of_a_form_is_not_used(client, body, charset):
    """Fields were decoded by it: punycode took seconds for a megabyte."""
    kind = {"content-type": f"multipart/form-data; boundary=xx; charset={charset}"}
    image = b'--xx\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + body + b"\r\n"
    field = b'--xx\r\nContent-Disposition: form-data; name="x"\r\n\r\n' + b"a-\xff." * 1000 + b"\r\n"
    assert client.post("/predict", content=field + image + b"--xx--\r\n", headers=kind).status_code == 200
    long = field.replace(b"a-", b"a" * 100)
    said = error_of(client.post("/predict", content=long + image + b"--xx--\r\n", headers=kind), 400)
    assert "exceeded maximum size of 64KB" in said


@pytest.mark.parametrize("boundary", ["", '""', "a" * 201, "\xff"])
def test_a_boundary_that_cannot_be_is_400(client, boundary):
    kind = {"content-type": f"multipart/form-data; boundary={boundary}".encode("latin-1")}
    said = error_of(client.post("/predict", content=b"x", headers=kind), 400)
    assert "no valid boundary" in said


def test_a_temporary_folder_that_vanished_is_made_again(client_of, served, body, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    client = client_of(served)
    (folder,) = tmp_path.iterdir()
    folder.rmdir()
    assert client.post("/predict", content=body).status_code == 200
    assert folder.stat().st_mode & 0o777 == 0o700 and not list(folder.iterdir())


def test_bodies_that_cannot_be_stored(client_of, served, body, monkeypatch, caplog):
    small = client_of(served, stored_bytes=len(body) - 1)
    refused = small.post("/predict", content=body)
    assert "too many bodies" in error_of(refused, 503) and refused.headers["retry-after"] == "1"

    def full(self, *args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    client = client_of(served, stored_bytes=len(body))
    for _ in range(2):  # nothing stays counted
        assert client.post("/predict", content=body).status_code == 200
    monkeypatch.setattr("pathlib.Path.mkdir", full)
    assert "(No space left on device)" in error_of(client.post("/predict", content=body), 507)
    assert "No space left on device" in caplog.text


def test_large_bodies_are_413_with_and_without_a_length(client_of, served, images, npy):
    client, body = client_of(served, body_bytes=2000), npy(images[0])
    refused = error_of(client.post("/predict", content=body), 413)
    assert "more than the limit of" in refused
    parts = iter([body[:1500], body[1500:]])
    assert "more than the limit of" in error_of(client.post("/predict", content=parts), 413)
    form = {"image": ("a.npy", body)}
    assert "more than the limit of" in error_of(client.post("/predict", files=form), 413)


def test_large_images_are_refused(client_of, served, body):
    assert "limit of 255 pixels" in error_of(
        client_of(served, pixels=255).post("/predict", content=body), 422
    )


class Blocked(Run):
    """A run whose predictions wait for permission."""

    def __init__(self, run):
        super().__init__(run.config, run.model, run.hardware, run.folder)
        self.go, self.begun = threading.Event(), threading.Event()

    def predict_batch(self, *args, **options):
        self.begun.set()
        assert self.go.wait(60)
        return super().predict_batch(*args, **options)


@pytest.fixture
def blocked(run):
    blocked = Blocked(run)
    yield blocked
    blocked.go.set()


def test_a_full_queue_is_503_and_those_in_it_are_answered(client_of, blocked, run, images, npy):
    client = client_of(Served(blocked, SETTINGS), queue_size=1)
    with ThreadPoolExecutor(2) as others:
        first = others.submit(client.post, "/predict", content=npy(images[0]))
        assert blocked.begun.wait(60)
        second = others.submit(client.post, "/predict", content=npy(images[1]))
        while client.get("/health").json()["waiting"] < 1:
            pass
        refused = client.post("/predict", content=npy(images[2]))
        assert "1 images are waiting" in error_of(refused, 503)
        assert int(refused.headers["retry-after"]) > 0
        blocked.go.set()
        for image, answer in ((images[0], first), (images[1], second)):
            assert_alike(answer.result(60), run, image)


def test_an_answer_that_takes_too_long_is_504(client_of, blocked, body):
    client = client_of(Served(blocked, SETTINGS), timeout=0.5)
    assert "no answer within 0.5 s" in error_of(client.post("/predict", content=body), 504)
    blocked.go.set()


def test_slow_decoding_keeps_no_file_and_delays_no_answer(
    client_of, blocked, run, images, npy, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    begun, go, read = threading.Semaphore(0), threading.Event(), bodies.read_image

    def slow(path):
        if path.suffix == ".png":
            begun.release()
            assert go.wait(60)
        return read(path)

    monkeypatch.setattr(bodies, "read_image", slow)
    client = client_of(Served(blocked, SETTINGS), timeout=1.5)
    (folder,) = tmp_path.iterdir()
    with ThreadPoolExecutor(3) as others:
        first = others.submit(client.post, "/predict", content=npy(images[0]))
        assert blocked.begun.wait(60)
        late = [others.submit(client.post, "/predict", content=b"\x89PNG\r\n\x1a\n") for _ in range(2)]
        for _ in late:
            assert begun.acquire(timeout=60)
        blocked.go.set()
        assert_alike(first.result(60), run, images[0])
        for answer in late:
            error_of(answer.result(60), 504)
        assert not list(folder.iterdir())
        go.set()


def test_a_bug_is_500_without_its_words_and_the_next_request_is_answered(client_of, run, images, npy, caplog):
    class Broken(Run):
        def predict_batch(self, images, *args, **options):
            if images[0].shape[1] == 8:
                raise KeyError("secret")
            return super().predict_batch(images, *args, **options)

    client = client_of(Served(Broken(run.config, run.model, run.hardware), SETTINGS))
    said = error_of(client.post("/predict", content=npy(images[0][:, :8])), 500)
    assert "KeyError" in said and "secret" not in said and "secret" in caplog.text
    assert_alike(client.post("/predict", content=npy(images[0])), run, images[0])


def test_memory_that_is_missing_is_413(client_of, run, body, monkeypatch):
    monkeypatch.setattr("ambiseg.engine.machine.memory.available_memory", lambda device: 1000)
    said = error_of(client_of(Served(run, SETTINGS)).post("/predict", content=body), 413)
    assert "needs about" in said and "available" in said


def test_the_run_folder_may_vanish(client_of, tiny_run, tmp_path, run, images, npy):
    copy = shutil.copytree(tiny_run, tmp_path / "run")
    client = client_of(Served(load(copy, precision="32", device="cpu"), PredictSettings()))
    shutil.rmtree(copy)
    for query, settings in (("", PredictSettings()), ("?top=1", PredictSettings(top=1))):
        assert_alike(client.post(f"/predict{query}", content=npy(images[0])), run, images[0], settings)
    assert client.get("/health").json()["status"] == "ok"


@pytest.fixture(scope="module")
def sampling(run):
    """An untrained run of a method that draws its masks."""
    labels = LabelSpace(("<script>alert(1)</script>", "b & c"))
    backbone, settings = UNetSettings(width=8, depth=2), SSNSettings(samples=5)
    torch.manual_seed(0)
    model = build("ssn", 1, labels, backbone, settings)
    config = RunConfig(
        "ssn", 1, labels, Normalization((0.0,), (1.0,)), backbone, settings, TrainSettings(), data="<i>"
    )
    return Run(config, model, Hardware.choose("32", device="cpu"))


def test_samples_depend_on_their_seed_alone(sampling, client_of, npy):
    client = client_of(Served(sampling, SETTINGS, seed=3))
    rng = np.random.default_rng(0)
    contents = [npy(rng.normal(size=(16, 16)).astype(np.float32)) for _ in range(4)]

    def masks(content, query=""):
        answer = client.post(f"/predict{query}", content=content)
        return answer.json()["seed"], masks_in(answer)[0].tolist()

    alone = [masks(content) for content in contents]
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(masks, contents)) == alone
    assert masks(contents[0], "?seed=3") == alone[0] and alone[0][0] == 3
    assert masks(contents[0], "?seed=4")[1] != alone[0][1]


def test_what_is_computed_together_does_not_matter(served, images):
    tasks = [served.task(image) for image in images]
    assert len({task.key for task in tasks}) == 1
    for task, together in zip(tasks, served.predict(tasks), strict=True):
        (alone,) = served.predict([task])
        assert torch.equal(alone.masks.masks, together.masks.masks)
        torch.testing.assert_close(alone.masks.weights, together.masks.weights)


def test_health_and_description(client, run):
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["method"] == "mode-proposals" and health["channels"]
    assert health["classes"] == ["background", "foreground"] and health["data"] == "fires"
    described = client.get("/openapi.json").json()
    parameters = described["paths"]["/predict"]["post"]["parameters"]
    assert [p["name"] for p in parameters] == ["samples", "top", "all", "seed", "format"]
    page = client.get("/")
    assert page.status_code == 200 and str(page.url).endswith("/docs")
    assert all(f"<code>{p['name']}</code>" in page.text for p in parameters)
    for word in ("<script", "src=", "http-equiv", "@import", "//cdn"):
        assert word not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]


def test_names_are_escaped(sampling, client_of):
    client = client_of(Served(sampling, SETTINGS))
    page = client.get("/docs").text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "b &amp; c" in page and "&lt;i&gt;" in page
    assert "<script" not in page and "<i>" not in page


def test_other_paths_are_refused_and_counted_together(client):
    for path in ("/a", "/b", "/predict/../c"):
        assert "/docs" in error_of(client.get(path), 404)
    assert "POST images to /predict" in error_of(client.get("/predict"), 405)
    assert 'ambiseg_requests_total{path="other",status="404"} 3.0' in client.get("/metrics").text


def test_a_mixture_is_taken_to_draw(served, run):
    mixed = replace(run.config, method="mixture")
    assert not served.draws
    assert Served(Run(mixed, run.model, run.hardware), SETTINGS).draws


def test_a_user_mistake_in_a_batch_is_422(client_of, run, body):
    class Refusing(Run):
        def predict_batch(self, *args, **options):
            raise AmbisegError("this cannot be: do that")

    client = client_of(Served(Refusing(run.config, run.model, run.hardware), SETTINGS))
    assert error_of(client.post("/predict", content=body), 422) == "this cannot be: do that"
