"""Measured hardware settings: what is wrong or not clearly faster is not taken, nothing else of the process changes, and
what was measured once is remembered."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
import torch

from ambiseg.data.batches import Batch
from ambiseg.engine.machine import calibration, calibration_cache, hardware_choice
from ambiseg.engine.machine.calibration import calibrate
from ambiseg.engine.machine.cores import available_cores, busy_cores, thread_counts
from ambiseg.engine.machine.hardware import Hardware
from ambiseg.engine.machine.hardware_choice import HardwareChoice, choose_hardware
from ambiseg.engine.machine.time_plan import fewest_updates, short_budget
from ambiseg.engine.settings import TrainSettings
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace
from ambiseg.maskset import MaskSet
from ambiseg.methods import build
from ambiseg.networks.settings import UNetSettings

LABELS = LabelSpace.binary()
PLAIN, LAST, HALF = (Hardware("cpu", False, False), Hardware("cpu", False, True), Hardware("cpu", True, True))


class FakeClock:
    """A clock that tests set."""

    now = 0.0

    def __init__(self, device: str = "cpu") -> None:
        pass

    def __call__(self) -> float:
        return FakeClock.now


@pytest.fixture
def model():
    torch.manual_seed(0)
    return build("ssn", 2, LABELS, UNetSettings(width=8, depth=2))


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 2, 16, 16, generator=generator)
    masks = (torch.rand(4, 2, 16, 16, generator=generator) < 0.5).to(torch.uint8)
    return Batch(images, MaskSet.uniform(masks, LABELS), ("a", "b", "c", "d"))


@pytest.fixture
def paced(monkeypatch):
    """``paced(times)``: a step takes so many seconds, by a fake clock; its values are those of the true step."""
    true_step = calibration._Trial.step

    def pace(times):
        FakeClock.now = 0.0

        def step(trial, clock, seed=0):
            _, loss = true_step(trial, clock, seed)
            took = times(trial) * len(trial.batch.ids) / 4
            FakeClock.now += took
            return took, loss

        monkeypatch.setattr(calibration, "_Clock", FakeClock)
        monkeypatch.setattr(calibration._Trial, "step", step)

    return pace


def test_the_fastest_is_taken_and_nothing_else_changes(model, batch, paced):
    paced(lambda trial: 0.01 if trial.hardware.channels_last else 0.02)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    random, threads, mode = torch.random.get_rng_state(), torch.get_num_threads(), model.training
    found = calibrate(model, batch, [PLAIN, LAST])
    assert found.best == LAST
    assert found.images == 4 and found.images_per_second == 400
    assert [(t.name, t.speed, t.problem) for t in found.timings] == [
        ("float32, channels first", 1.0, ""),
        ("float32, channels last", 2.0, ""),
    ]
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), random)
    assert (torch.get_num_threads(), model.training) == (threads, mode)


def test_a_win_below_the_margin_keeps_the_default(model, batch, paced):
    paced(lambda trial: 0.0097 if trial.hardware.channels_last else 0.01)
    assert calibrate(model, batch, [PLAIN, LAST]).best == PLAIN


def test_what_slows_the_machine_in_every_other_turn_is_shared(model, batch, paced):
    turns = iter(range(10_000))
    paced(lambda trial: (0.011 if trial.hardware.channels_last else 0.01) * (1 + 3 * (next(turns) // 2 % 2)))
    assert calibrate(model, batch, [PLAIN, LAST]).best == PLAIN


def test_other_threads_must_win_clearly(model, batch, paced):
    one = replace(PLAIN, threads=1)
    paced(lambda trial: 0.009 if trial.hardware.threads == 1 else 0.01)
    assert calibrate(model, batch, [PLAIN, one]).best == PLAIN
    paced(lambda trial: 0.007 if trial.hardware.threads == 1 else 0.01)
    assert calibrate(model, batch, [PLAIN, one]).best == one


def test_threads_that_stand_in_the_way_are_not_tried(model, batch, paced):
    one = replace(PLAIN, threads=1)
    paced(lambda trial: 0.01 if trial.hardware.threads == 1 else 0.04)
    found = calibrate(model, batch, [PLAIN, one])
    assert found.best == one
    assert found.timings[1].problem == "over 3 times slower than another number of threads"


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda loss: loss * torch.nan, "loss differs by nan %"),
        (lambda loss: 2 * loss, "loss differs by 1e+02 %"),
        (lambda loss: loss.detach() + 2 * (loss - loss.detach()), "gradient differs by 1e+02 %"),
    ],
)
def test_wrong_results_are_left_out(model, batch, paced, monkeypatch, spoil, problem):
    true_losses = calibration.losses_of

    def losses(segmenter, images, annotations):
        loss = true_losses(segmenter, images, annotations)["loss"]
        last = images.is_contiguous(memory_format=torch.channels_last)
        return {"loss": spoil(loss) if last else loss}

    monkeypatch.setattr(calibration, "losses_of", losses)
    paced(lambda trial: 0.01 if trial.hardware.channels_last else 0.02)
    monkeypatch.setattr(calibration, "_differences", _strictly(calibration._differences))
    found = calibrate(model, batch, [PLAIN, LAST])
    assert found.best == PLAIN
    assert found.timings[1].problem.startswith(problem)


def _strictly(differences):
    """Differences without noise: those of another seed, which are the second ones asked for, count as none."""
    calls = iter(range(100))

    def found(*arguments):
        return [0.0, 0.0] if next(calls) == 0 else differences(*arguments)

    return found


def test_what_raises_is_left_out(model, batch, paced, monkeypatch):
    true_losses = calibration.losses_of

    def losses(segmenter, images, annotations):
        if images.is_contiguous(memory_format=torch.channels_last):
            raise RuntimeError("view size is not compatible")
        return true_losses(segmenter, images, annotations)

    monkeypatch.setattr(calibration, "losses_of", losses)
    paced(lambda trial: 0.01)
    found = calibrate(model, batch, [LAST, PLAIN])
    assert found.best == PLAIN
    assert found.timings[0].problem == "RuntimeError: view size is not compatible"


def test_bfloat16_of_a_method_is_right(model, batch, paced):
    paced(lambda trial: 0.01 if trial.hardware.bf16 else 0.02)
    assert calibrate(model, batch, [PLAIN, LAST, HALF]).best == HALF


def test_slow_steps_take_fewer_images_and_very_slow_ones_none(model, batch, paced):
    paced(lambda trial: 0.4)
    assert calibrate(model, batch, [PLAIN, LAST]).images == 2
    paced(lambda trial: 4.0)
    found = calibrate(model, batch, [PLAIN, LAST])
    assert (found.best, found.images, found.images_per_second) == (PLAIN, 0, 1.0)


def test_large_images_are_cropped_and_counted_whole(model, paced):
    images, masks = torch.randn(2, 2, 128, 80), torch.zeros(2, 1, 128, 80, dtype=torch.uint8)
    paced(lambda trial: 0.01)
    found = calibrate(model, Batch(images, MaskSet.uniform(masks, LABELS), ("a", "b")), [PLAIN])
    assert found.size == (64, 64)
    assert found.images_per_second == pytest.approx(400 * 64 * 64 / (128 * 80), rel=1e-3)


# -- the choice ----------------------------------------------------------------------------------------------

LONG = TrainSettings(updates=1000, precision="32", channels_last="auto", threads=1)


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """Measuring is allowed, and remembered in a folder of the test."""
    monkeypatch.delenv(hardware_choice.SWITCH)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(hardware_choice, "busy_cores", lambda: lambda: 0.0)
    return tmp_path / "cache" / "ambiseg" / "hardware.json"


def chosen(train, model, batch, steps=1000, facts=None):
    return choose_hardware(train, model, lambda images: batch, facts or {}, steps)


def test_a_choice_is_remembered(model, batch, paced, measuring):
    paced(lambda trial: 0.01 if trial.hardware.channels_last else 0.02)
    first = chosen(LONG, model, batch)
    assert (first.chosen, first.reason) == (replace(LAST, threads=1), "measured")
    assert HardwareChoice.from_dict(json.loads(json.dumps(first.to_dict()))) == first
    paced(lambda trial: 0.01)
    again = chosen(LONG, model, batch)
    assert again == replace(first, reason=time.strftime("measured on %Y-%m-%d"))
    other = chosen(LONG, model, batch, facts={"method": "another"})
    assert (other.chosen, other.reason) == (replace(PLAIN, threads=1), "measured")
    assert len(json.loads(measuring.read_text())) == 2


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"KEY": 3}', '{"KEY": {"time": TIME, "value": {"chosen": 1}}}']
)
def test_a_damaged_memory_is_ignored(model, batch, paced, measuring, damage):
    paced(lambda trial: 0.01)
    chosen(LONG, model, batch)
    (key,) = json.loads(measuring.read_text())
    measuring.write_text(damage.replace("KEY", key).replace("TIME", str(time.time())))
    assert chosen(LONG, model, batch).reason == "measured"


def test_a_memory_forgets(measuring, monkeypatch):
    monkeypatch.setattr(calibration_cache, "MOST_ENTRIES", 3)
    for number in range(5):
        calibration_cache.remember(str(number), {"n": number})
    assert [calibration_cache.recall(str(n)) is not None for n in range(5)] == [
        False,
        False,
        True,
        True,
        True,
    ]
    later = time.time() + 31 * 86400
    monkeypatch.setattr(calibration_cache.time, "time", lambda: later)
    assert calibration_cache.recall("4") is None


def test_a_folder_that_cannot_be_made_is_no_error(measuring):
    measuring.parent.parent.write_text("a file where the folder should be")
    calibration_cache.remember("a", {})
    assert calibration_cache.recall("a") is None


def test_what_was_measured_on_a_busy_machine_is_not_remembered(model, batch, paced, measuring, monkeypatch):
    monkeypatch.setattr(hardware_choice, "busy_cores", lambda: lambda: 0.5)
    paced(lambda trial: 0.01)
    assert chosen(LONG, model, batch).reason == "measured while other programs took 50 % of the cores"
    assert not measuring.exists()


@pytest.mark.parametrize(
    ("changes", "steps", "reason"),
    [
        ({"updates": 499}, 499, "that takes 500 updates or 1 minute of training"),
        ({"updates": None, "minutes": 0.9}, None, "that takes 500 updates or 1 minute of training"),
        ({"devices": 2}, 1000, "several processes"),
    ],
)
def test_when_nothing_is_measured(model, batch, measuring, changes, steps, reason):
    found = chosen(replace(LONG, **changes), model, batch, steps)
    assert (found.reason, found.timings) == (f"not measured: {reason}", ())
    assert found.chosen == replace(PLAIN, threads=1)


def test_the_environment_forbids_measuring(model, batch, measuring, monkeypatch):
    monkeypatch.setenv(hardware_choice.SWITCH, "no")
    assert chosen(LONG, model, batch).reason == "not measured: AMBISEG_CALIBRATE=no"


@pytest.mark.parametrize("name", ["WORLD_SIZE", "SLURM_NTASKS"])
def test_processes_that_others_start_choose_the_same(model, batch, measuring, monkeypatch, name):
    monkeypatch.setenv(name, "2")
    assert chosen(LONG, model, batch).reason == "not measured: several processes"


@pytest.mark.parametrize("threads", [0, -1, 10**6])
def test_senseless_threads_of_a_file_are_refused(threads):
    values = HardwareChoice(replace(PLAIN, threads=threads), "measured").to_dict()
    with pytest.raises(AmbisegError, match=f"threads are 1 to 1024, received {threads}"):
        HardwareChoice.from_dict(values)


def test_a_model_that_fails_is_left_to_the_training(model, batch, measuring, monkeypatch):
    def fails(*arguments):
        raise RuntimeError("no")

    monkeypatch.setattr(calibration, "losses_of", fails)
    assert chosen(LONG, model, batch).reason == "not measured: RuntimeError: no"


# -- cores ---------------------------------------------------------------------------------------------------


def test_quotas_of_control_groups_bound_the_cores(tmp_path):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n4:cpu,cpuacct:/c\n")
    second, first = tmp_path / "sys/fs/cgroup/a", tmp_path / "sys/fs/cgroup/cpu/c"
    for folder in (second, first):
        folder.mkdir(parents=True)
    all_cores = available_cores(tmp_path)
    (second / "cpu.max").write_text("max 100000\n")
    assert available_cores(tmp_path) == all_cores
    (second / "cpu.max").write_text("50000 100000\n")
    assert available_cores(tmp_path) == 1
    (second / "cpu.max").unlink()
    (first / "cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cores(tmp_path) == all_cores
    (first / "cpu.cfs_quota_us").write_text("100000\n")
    assert available_cores(tmp_path) == 1


def test_threads_that_a_user_names_are_kept(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert thread_counts() == []
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr("ambiseg.engine.machine.cores.available_cores", lambda: 6)
    assert thread_counts() == [6, 3]
    monkeypatch.setattr("ambiseg.engine.machine.cores.available_cores", lambda: 64)
    assert thread_counts() == [4]


def test_others_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {1}, raising=False)
    monkeypatch.setattr("ambiseg.engine.machine.cores._TICKS", 100)
    seconds = iter([0.0, 2.0, 0.0])
    monkeypatch.setattr("ambiseg.engine.machine.cores.time.process_time", lambda: next(seconds))
    stat = tmp_path / "proc/stat"
    stat.parent.mkdir()
    stat.write_text("cpu 9 9 9 9 9 9 9 9 9 9\ncpu0 9 9 9 9 9 9 9 9 0 0\ncpu1 100 0 0 100 0 0 0 0 0 0\n")
    share = busy_cores(tmp_path)
    stat.write_text("cpu1 500 0 100 600 0 0 0 0 0 0\n")
    assert share() == pytest.approx((500 - 200) / 1000)
    assert busy_cores(tmp_path / "nowhere")() == 0


# -- minutes -------------------------------------------------------------------------------------------------


def test_a_budget_that_suffices_says_nothing():
    assert fewest_updates(1) == fewest_updates(16) == 600
    assert short_budget(10, 16, 16, 32, lambda width: pytest.fail("not needed")) == ""
    assert short_budget(10, 64, 16, 32, lambda width: pytest.fail("not needed")) == ""


def test_the_widest_network_that_the_budget_trains_is_proposed():
    said = short_budget(10, 16, 8, 64, {32: 12, 16: 20, 8: 40}.__getitem__)
    assert "at most 300 updates of 16 images" in said
    assert "--set backbone.width=16 is time for about 750, or give --minutes 20" in said


@pytest.mark.parametrize("width", [None, 8, 32])
def test_minutes_alone_where_no_width_helps(width):
    assert short_budget(10, 16, 8, width, lambda width: 9).endswith(": give --minutes 20")
