"""A real browser draws the report: the file is read from disk, with no network and no script."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from report_samples import START, config_of, reasons_of, status_of, write

from funoffshore.reading import Present
from funoffshore.show import report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
STAGES = ((36, 99, 197), (123, 69, 189), (13, 122, 107))
"""Red, green, blue of machines, K3s and Flux in a light picture."""
WIDTH, HEIGHT = 1280, 3400
"""Of the window; the picture has half of each, which is enough and quicker to look at."""

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: chromium, chromium-browser or google-chrome")


@pytest.mark.parametrize(
    ("controllers", "workers", "hypervisors", "fail"), [(3, 2, 1, "k3s/lab-w2"), (5, 50, 3, "")], ids=("3+2", "5+50")
)
def test_it_is_drawn(tmp_path: Path, controllers: int, workers: int, hypervisors: int, fail: str) -> None:
    config = config_of(controllers, workers, hypervisors, tmp_path)
    folder = write(config, tmp_path, fail=fail)
    seen = Present(status_of(config, good=not fail))
    page = report.write(config, folder, seen, reasons_of(good=not fail), START + 500)
    width, height, colours = pixels(shot(page, tmp_path))
    assert (width, height) == (WIDTH // 2, HEIGHT // 2)
    assert len(colours) > 150
    assert max(colours.values()) < 0.9 * width * height, "nearly all of the picture is of one colour"
    for stage in STAGES[: 2 if fail else 3]:  # the failure keeps Flux from beginning
        assert colours.get(bytes(stage), 0) > 100, f"the colour {stage} of a stage is missing"


def shot(page: Path, tmp_path: Path) -> Path:
    """What the browser shows of ``page``."""
    picture = tmp_path / "shot.png"
    assert BROWSER
    subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
         "--force-device-scale-factor=0.5", f"--user-data-dir={tmp_path / 'browser'}",
         f"--window-size={WIDTH},{HEIGHT}", "--blink-settings=preferredColorScheme=1", f"--screenshot={picture}",
         page.as_uri()],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return picture


def pixels(path: Path) -> tuple[int, int, dict[bytes, int]]:
    """Width, height and how often each colour occurs, of a PNG with 8 bits a channel and no interlacing."""
    data, body = path.read_bytes(), b""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    assert (depth, interlaced) == (8, 0)
    at = 8
    while at < len(data):
        length = int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            body += data[at + 8 : at + 8 + length]
        at += length + 12
    colours: dict[bytes, int] = {}
    size = {2: 3, 6: 4}[kind]
    above = bytearray(width * size)
    raw = zlib.decompress(body)
    for line in range(height):
        start = line * (width * size + 1)
        above = unfiltered(raw[start], bytearray(raw[start + 1 : start + 1 + width * size]), above, size)
        for x in range(0, width * size, size):
            colour = bytes(above[x : x + 3])
            colours[colour] = colours.get(colour, 0) + 1
    return width, height, colours


def unfiltered(method: int, line: bytearray, above: bytearray, size: int) -> bytearray:
    """One line of a PNG, its filter undone (PNG specification, clause 9)."""
    for i in range(len(line) if method else 0):
        left = line[i - size] if i >= size else 0
        corner = above[i - size] if i >= size else 0
        up = above[i]
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda value: abs(guess - value)) if method == 4 else 0
        line[i] = (line[i] + (left, up, (left + up) // 2, nearest)[method - 1]) & 255
    return line
