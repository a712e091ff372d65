# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Reading in another process: the same clips, and a crash, a hang or a lack of memory costs one request."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name all of its documentation uses
from PIL import Image
from pydicom.data import get_testdata_file

from hub_model.isolated_reading_omniv_med import IsolatedReader
from hub_model.media_omniv_med import Clip, MediaError, MediaLimits, load_clip
from tests.helpers.paths import ROOT

SMALL = Path(get_testdata_file("CT_small.dcm", download=False))
JPEG_LS = Path(get_testdata_file("MR_small_jpeg_ls_lossless.dcm", download=False))  # decoded by a further process
FRAMES = Path(get_testdata_file("SC_rgb_rle_2frame.dcm", download=False))
FILM = ROOT / "examples/media/ultrasound.mp4"
"""Its reading reports progress, so a test can act in the middle of it; its pixels do not fit into a pipe."""
SECONDS_TO_HANG = 10.0
"""A hang costs a test as long; the small files beside it are read in a hundredth of it."""
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells and limits what a process holds")


@pytest.fixture(scope="module")
def reader() -> Iterator[IsolatedReader]:
    with IsolatedReader() as isolated:
        yield isolated


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume of 256 MB that takes no space on the disk: a file with a hole."""
    path = tmp_path_factory.mktemp("large") / "volume.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (256, 1024, 1024)).flush()
    return path


def assert_same(clip: Clip, expected: Clip) -> None:
    assert type(clip) is Clip
    np.testing.assert_array_equal(clip.frames, expected.frames)
    np.testing.assert_array_equal(clip.positions, expected.positions)
    assert clip.frames.dtype == np.uint8 and clip.positions.dtype == np.float64
    assert (clip.geometry is None) == (expected.geometry is None)
    if clip.geometry is not None and expected.geometry is not None:
        np.testing.assert_array_equal(clip.geometry.origins, expected.geometry.origins)
        np.testing.assert_array_equal(clip.geometry.steps, expected.geometry.steps)
    arrays = {"frames": 0, "positions": 0, "geometry": 0}
    assert {**vars(clip), **arrays} == {**vars(expected), **arrays}


def children(process: int | str = "self") -> set[int]:
    """Processes that one has started and that live."""
    found: set[int] = set()
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended since
            found |= {int(number) for number in (task / "children").read_text().split()}
    return found


def test_the_clip_is_that_of_load_clip(reader, tmp_path):
    body = np.arange(6 * 8 * 10, dtype=np.int16).reshape(6, 8, 10)
    image = sitk.GetImageFromArray(body)
    image.SetSpacing((0.7, 0.8, 2.5))
    sitk.WriteImage(image, str(tmp_path / "volume.nii.gz"))
    Image.new("RGB", (9, 7), "red").save(tmp_path / "picture.png")
    options = [{}, {"modality": "MR", "max_frames": np.int64(3), "plane": "coronal", "spacing": np.array([2.5, 1, 1])}]
    for source in (SMALL, str(FRAMES), tmp_path / "picture.png", tmp_path, [FRAMES]):
        if source != tmp_path:
            assert_same(reader.load_clip(source), load_clip(source))
    for choice in options:
        assert_same(
            reader.load_clip(tmp_path / "volume.nii.gz", **choice), load_clip(tmp_path / "volume.nii.gz", **choice)
        )
    uri = "data:image/bmp;base64,Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAD/AA=="
    assert_same(reader.load_clip(uri), load_clip(uri))


def test_a_relative_path_counts_from_the_folder_of_the_caller(reader, tmp_path, monkeypatch):
    (tmp_path / "here.dcm").write_bytes(SMALL.read_bytes())
    monkeypatch.chdir(tmp_path)
    assert_same(reader.load_clip("here.dcm"), load_clip(SMALL))


def test_what_cannot_be_read_is_told_in_the_same_sentence(reader, tmp_path):
    (tmp_path / "cut.dcm").write_bytes(SMALL.read_bytes()[:5000])
    requests = [
        (tmp_path / "cut.dcm", {}),
        (tmp_path / "missing.nii", {}),
        ("https://example.org/ct.nii.gz", {}),
        (SMALL, {"plane": "oblique"}),
        (SMALL, {"fps": float("nan")}),
        (SMALL, {"limits": MediaLimits(max_pixels=100)}),
    ]
    for source, options in requests:
        with pytest.raises(MediaError) as expected:
            load_clip(source, **options)
        with pytest.raises(MediaError) as caught:
            reader.load_clip(source, **options)
        assert str(caught.value) == str(expected.value)


def test_progress_is_told_and_may_stop(reader):
    film, told = ROOT / "examples/media/ultrasound.mp4", []
    reader.load_clip(film, progress=lambda done, total: told.append((done, total)))
    assert told == [(done + 1, len(told)) for done in range(len(told))] and told

    def stop(done: int, total: int) -> None:
        raise MediaError("Stopped.")

    with pytest.raises(MediaError, match=r"^Stopped\.$"):
        reader.load_clip(film, progress=stop)
    assert_same(reader.load_clip(SMALL), load_clip(SMALL))


def test_only_files_are_read_in_a_process(reader):
    for source in (b"bytes", np.zeros((4, 4)), [np.zeros((4, 4))], None):
        with pytest.raises(MediaError, match="save the media as a file"):
            reader.load_clip(source)
    with pytest.raises(TypeError, match="max_frame"):
        reader.load_clip(SMALL, max_frame=3)


def wait_for_the_end(process: int) -> None:
    """Until it has gone, or only waits to be noticed."""
    try:
        descriptor = os.pidfd_open(process)
    except ProcessLookupError:
        return
    try:
        ended, _, _ = select.select([descriptor], [], [], 120)
    finally:
        os.close(descriptor)
    assert ended, "The process goes on."


def send_while_reading(isolated: IsolatedReader, number: signal.Signals) -> None:
    """Reads the film, and sends its process a signal in the middle of that: after the first frame."""
    before = children()

    def send(done: int, total: int) -> None:
        if done == 1:
            (worker,) = children() - before
            os.kill(worker, number)

    isolated.load_clip(FILM, progress=send)


@linux
def test_the_process_is_kept_and_ended():
    before = children()
    with IsolatedReader(processes=2) as isolated:
        assert children() == before, "nothing is started before it is needed"
        isolated.load_clip(SMALL)
        (worker,) = children() - before
        isolated.load_clip(JPEG_LS)
        assert children() - before == {worker}
        (decoder,) = children(worker)
    assert children() == before
    wait_for_the_end(decoder)
    assert_same(isolated.load_clip(SMALL), load_clip(SMALL))
    isolated.close()


@linux
def test_a_hang_costs_one_request():
    with IsolatedReader(time_limit=SECONDS_TO_HANG, processes=1) as isolated:
        with pytest.raises(MediaError, match=r"^The file takes longer than 10 s to read; .*\.$"):
            send_while_reading(isolated, signal.SIGSTOP)
        assert_same(isolated.load_clip(SMALL), load_clip(SMALL))


@linux
def test_a_crash_costs_one_request():
    """The signal comes from outside, because no file is known that makes the installed decoders send it."""
    with IsolatedReader(processes=1) as isolated:
        with pytest.raises(MediaError, match=r"^The file made its decoder fail: .*\.$"):
            send_while_reading(isolated, signal.SIGSEGV)
        assert_same(isolated.load_clip(SMALL), load_clip(SMALL))


@linux
def test_a_process_that_ended_while_idle_costs_nothing():
    before = children()
    with IsolatedReader(processes=1) as isolated:
        isolated.load_clip(SMALL)
        (worker,) = children() - before
        os.kill(worker, signal.SIGKILL)
        wait_for_the_end(worker)
        assert_same(isolated.load_clip(SMALL), load_clip(SMALL))


@linux
@pytest.mark.parametrize("suffix", ["npy", "nii"])
def test_a_lack_of_memory_costs_one_request(large, tmp_path, suffix):
    if suffix == "nii":
        header = bytearray(348)
        for place, value in ((0, 348), (40, 3), (42, 1024), (44, 1024), (46, 256), (70, 2), (72, 8)):
            header[place : place + 2] = value.to_bytes(2, "little")
        header[108:112], header[344:348] = np.float32(352).tobytes(), b"n+1\0"
        header[80:92] = np.ones(3, np.float32).tobytes()
        large = tmp_path / "volume.nii"
        large.write_bytes(header)
        os.truncate(large, 352 + 2**28)
    with IsolatedReader(memory_limit=2**28, processes=1) as isolated:
        with pytest.raises(MediaError, match="memory"):
            isolated.load_clip(large)
        assert_same(isolated.load_clip(SMALL), load_clip(SMALL))


def test_threads_share_the_processes(reader):
    sources = [SMALL, FRAMES] * 10
    with ThreadPoolExecutor(6) as pool:
        clips = list(pool.map(reader.load_clip, sources))
    for clip, expected in zip(clips, [load_clip(SMALL), load_clip(FRAMES)] * 10, strict=True):
        assert_same(clip, expected)


def test_nothing_is_left_on_the_disk(tmp_path, monkeypatch):
    """Not even by a process that is ended in the middle of an archive."""
    archive, scratch = tmp_path / "film.zip", tmp_path / "scratch"
    with zipfile.ZipFile(archive, "w") as out:
        out.write(FILM, FILM.name)
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    found: list[bytes] = []
    isolated = IsolatedReader(processes=1)

    def end_the_process(done: int, total: int) -> None:
        found.extend(path.read_bytes() for path in scratch.rglob("*") if path.is_file())
        isolated.close()

    with pytest.raises(MediaError, match=r"^The file made its decoder fail"):
        isolated.load_clip(archive, progress=end_the_process)
    assert found == [FILM.read_bytes()], "it was read out of a copy"
    assert list(scratch.iterdir()) == []


@linux
@pytest.mark.parametrize("end", ["pass", "os.kill(os.getpid(), 9)"])
def test_a_program_that_does_not_close_leaves_nothing_behind(tmp_path, end):
    code = (
        "import os\n"
        "from hub_model.isolated_reading_omniv_med import IsolatedReader\n"
        f"reader = IsolatedReader(); reader.load_clip({str(SMALL)!r})\n"
        "print(open('/proc/thread-self/children').read(), flush=True)\n"
        f"{end}"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    child = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, timeout=120)
    assert (child.returncode, child.stderr) == (0 if end == "pass" else -9, b"")
    wait_for_the_end(int(child.stdout))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_does_not_start_is_no_fault_of_the_file(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false" if os.path.exists("/bin/false") else "/usr/bin/false")
    with IsolatedReader() as isolated, pytest.raises(RuntimeError, match="Files cannot be read: 'python -m"):
        isolated.load_clip(SMALL)


ELSEWHERE = """
import sys
from transformers.dynamic_module_utils import get_class_from_dynamic_module
folder, *sources = sys.argv[1:]
reader_class = get_class_from_dynamic_module("isolated_reading_omniv_med.IsolatedReader", folder)
load_clip = get_class_from_dynamic_module("media_omniv_med.load_clip", folder)
with reader_class() as reader:
    for source in sources:
        assert (reader.load_clip(source).frames == load_clip(source).frames).all()
assert "hub_model" not in sys.modules
print(len(sources))
"""


def test_a_copy_of_the_code_alone_reads_every_kind_elsewhere(tmp_path):
    """transformers copies a file and what it imports into a package of its own, with another name."""
    copy, elsewhere = tmp_path / "copy", tmp_path / "elsewhere"
    shutil.copytree(ROOT / "hub_model", copy, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    elsewhere.mkdir()
    Image.new("RGB", (9, 7), "red").save(elsewhere / "picture.png")
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(elsewhere / "volume.nii.gz"))
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 4, 5), np.int16)), str(elsewhere / "volume.mha"))
    shutil.copy(JPEG_LS, elsewhere / "compressed.dcm")  # GDCM decodes it in a process that finds its code, too
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": str(elsewhere / "modules")}
    sources = ["picture.png", "volume.nii.gz", "volume.mha", "compressed.dcm", str(SMALL), str(FILM)]
    child = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(copy), *sources], cwd=elsewhere, env=environment, capture_output=True
    )
    assert child.returncode == 0, child.stderr.decode()
    assert int(child.stdout) == len(sources)
