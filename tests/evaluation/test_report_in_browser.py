"""Reports in a browser: they show without errors, fit phone and desk, and print."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.reports import Evaluated, Page

CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH to open the report in")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
# Loads the page into a frame of each width, and writes down what it finds there.
HARNESS = """<!DOCTYPE html><title>harness</title><body><pre id="found">[]</pre><script>
const page = {page}, widths = {widths}, found = [];
for (const width of widths) {{
  const frame = document.createElement("iframe");
  frame.style = `border: 0; width: ${{width}}px; height: 800px`;
  frame.onload = async () => {{
    const inside = frame.contentDocument, images = [...inside.images];
    const decoded = await Promise.allSettled(images.map((image) => image.decode()));
    const outside = [...inside.querySelectorAll("body *")].filter(
      (element) => !element.closest(".scroll") && element.getBoundingClientRect().right > width + 1);
    found.push({{
      width, scrollWidth: inside.documentElement.scrollWidth, images: images.length,
      decoded: decoded.filter((one) => one.status === "fulfilled").length,
      outside: outside.map((element) => element.outerHTML.slice(0, 80)),
      smallest: Math.min(...images.map((image) => image.getBoundingClientRect().width)),
      sans: inside.defaultView.getComputedStyle(inside.body).fontFamily.includes("system-ui"),
    }});
    document.getElementById("found").textContent = JSON.stringify(found);
  }};
  frame.srcdoc = page;
  document.body.append(frame);
}}
</script></body>"""


# Measures the first picture of an example, selects it, and closes it again.
ENLARGE = """<!DOCTYPE html><title>harness</title><body><pre id="found">[]</pre><script>
const frame = document.createElement("iframe"), found = [];
frame.style = "border: 0; width: 800px; height: 600px";
frame.onload = async () => {
  const inside = frame.contentDocument, item = inside.querySelector(".cells li");
  const measure = () => found.push(item.querySelector("img").getBoundingClientRect().height);
  measure();
  for (const name of [".zoom", ".close"]) {
    item.querySelector(name).click();
    await new Promise((resolve) => setTimeout(resolve, 100));
    measure();
  }
  document.getElementById("found").textContent = JSON.stringify(found);
};
frame.src = "report.html";
document.body.append(frame);
</script></body>"""


def opened(path: Path, profile: Path, *flags: str) -> tuple[str, str]:
    """What headless Chromium makes of a file: the document, and its log without what is not about the page."""
    command = [
        str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
        *flags, path.as_uri(),
    ]  # fmt: skip
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    about_page = [line for line in ended.stderr.splitlines() if "CONSOLE" in line or "net_error" in line.lower()]
    return ended.stdout, "\n".join(about_page)


@in_browser
def test_browser_shows_the_report_without_errors(evaluated: Evaluated, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(evaluated.html, encoding="utf-8")
    document, log = opened(path, tmp_path / "profile", "--dump-dom")
    assert log == ""
    assert Page(document).tables == evaluated.page.tables


def check_fits(text: str, folder: Path) -> None:
    """Nothing of a page is wider than phone or desktop, and every picture shows."""
    harness, widths = folder / "harness.html", [320, 390, 1280]
    page = json.dumps(text.replace("<details>", "<details open>")).replace("</", "<\\/")
    harness.write_text(HARNESS.format(page=page, widths=widths), encoding="utf-8")
    found: dict[int, Any] = {}
    for _ in range(3):  # the budget of a browser that gets no processor runs out before its pages are loaded
        document, log = opened(harness, folder / "profile", "--dump-dom", "--virtual-time-budget=20000")
        assert log == ""
        match = re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)
        assert match is not None
        found = {frame["width"]: frame for frame in json.loads(html.unescape(match[1]))}
        if found:
            break
    assert sorted(found) == widths
    for width, frame in found.items():
        assert frame["outside"] == []
        assert frame["scrollWidth"] <= width
        assert frame["decoded"] == frame["images"] == len(Page(text).all("img"))
        assert frame["smallest"] >= 40
        assert frame["sans"]


@in_browser
def test_page_fits_phone_and_desk_and_all_pictures_decode(evaluated: Evaluated, tmp_path: Path) -> None:
    long = "a_very_long_name_without_any_place_to_break_" * 4
    check_fits(evaluated.render(dataset_file=long, training_settings={long: long}), tmp_path)


@in_browser
def test_page_of_a_segmentation_fits_phone_and_desk(segmented: Evaluated, tmp_path: Path) -> None:
    check_fits(segmented.html, tmp_path)


@in_browser
def test_report_prints_with_its_settings_unfolded(evaluated: Evaluated, tmp_path: Path) -> None:
    path, printed = tmp_path / "report.html", tmp_path / "report.pdf"
    path.write_text(evaluated.html, encoding="utf-8")
    _, log = opened(path, tmp_path / "profile", f"--print-to-pdf={printed}", "--no-pdf-header-footer")
    assert log == ""
    contents = printed.read_bytes()
    assert contents.startswith(b"%PDF")
    assert 3 <= contents.count(b"/Type /Page\n") <= 12


@in_browser
def test_selected_picture_fills_the_window(evaluated: Evaluated, tmp_path: Path) -> None:
    harness = tmp_path / "harness.html"
    harness.write_text(ENLARGE, encoding="utf-8")
    (tmp_path / "report.html").write_text(evaluated.html, encoding="utf-8")
    flags = ("--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=20000")
    document, log = opened(harness, tmp_path / "profile", *flags)
    assert log == ""
    match = re.search(r'<pre id="found">(.*?)</pre>', document, re.DOTALL)
    assert match is not None
    before, enlarged, closed = json.loads(html.unescape(match[1]))
    assert before == closed
    assert before < 100
    assert enlarged > 300
