"""The page in a real browser: it draws without an error or a request, and everything works by keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onnxprune.report import Report
from onnxprune.report.html import front_html, to_html
from tests.report.pages import front, hostile, scored

pytestmark = pytest.mark.browser

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --window-size=1280,900"
).split()
PATIENCE_S = 60  # two busy cores may take long to start a browser and to draw


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not (CHROMIUM and DRIVER):
        if os.environ.get("CI") == "true":
            pytest.fail("no chromium and chromedriver, which continuous integration must have")
        pytest.skip("no chromium and chromedriver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def opened(browser: Any, folder: Path, text: str) -> Any:
    """The browser with the page drawn, and empty logs."""
    path = folder / "report.html"
    path.write_text(text, encoding="utf-8")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(path.as_uri())
    return drawn(browser)


def drawn(browser: Any) -> Any:
    """The browser, once all charts are drawn."""
    from selenium.webdriver.support.ui import WebDriverWait

    done = "return document.documentElement.dataset.drawn"
    WebDriverWait(browser, PATIENCE_S).until(lambda b: b.execute_script(done))
    return browser


@pytest.fixture(scope="module")
def loaded(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page that several tests use, drawn once."""
    opened(browser, folder := tmp_path_factory.mktemp("page"), to_html(scored(), front()))
    return (folder / "report.html").as_uri()


@pytest.fixture
def page(browser: Any, loaded: str) -> Any:
    if browser.current_url != loaded:
        browser.get(loaded)
        drawn(browser)
    return browser


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def focus(browser: Any, ident: str) -> None:
    browser.execute_script("document.getElementById(arguments[0]).focus()", ident)


def text(browser: Any, ident: str) -> str:
    return str(browser.execute_script("return document.getElementById(arguments[0]).textContent", ident))


@pytest.mark.parametrize("build", [lambda: to_html(scored(), front()), lambda: front_html(front())])
def test_it_draws_without_errors_or_requests(browser: Any, tmp_path: Path, build: Any) -> None:
    opened(browser, tmp_path, build())
    assert browser.get_log("browser") == []
    log = [entry["message"] for entry in browser.get_log("performance")]
    sent = [message for message in log if "Network.requestWillBeSent" in message]
    assert not [m for m in sent if '"url":"http' in m or '"url":"ws' in m]
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    plots = browser.find_elements("css selector", ".plot")
    assert plots and all(plot.find_elements("css selector", "svg .subplot") for plot in plots)


def test_pointing_at_a_bar_shows_its_tooltip(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    plot = page.find_element("id", "channels-plot")
    page.execute_script("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot)
    bar = page.find_elements("css selector", "#channels-plot .bars .point path")[-1]
    ActionChains(page).move_to_element(bar).perform()
    shown = WebDriverWait(page, PATIENCE_S).until(
        lambda b: b.find_elements("css selector", "#channels-plot .hovertext")
    )
    assert "channels" in shown[0].get_attribute("textContent") and "MACs" in shown[0].get_attribute("textContent")


@pytest.mark.parametrize("chart", ["front", "speedup", "latency", "channels", "importance", "cut", "graph"])
def test_arrow_keys_read_every_chart(page: Any, chart: str) -> None:
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    focus(page, f"{chart}-plot")
    press(page, Keys.ARROW_RIGHT)
    first = text(page, "said")
    press(page, Keys.ARROW_RIGHT)
    assert ", 1 of " in first and ", 2 of " in text(page, "said") and "<" not in first
    shown = f"#{chart}-plot .hovertext"  # a chart that scrolls under the pointer hides it
    WebDriverWait(page, PATIENCE_S).until(
        lambda b: b.find_elements("css selector", shown) or press(page, Keys.ARROW_RIGHT)
    )


def test_tab_reaches_every_control(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    every = "return [...document.querySelectorAll('button, input, select, .plot')].map(e => e.id || e.dataset.view)"
    here = "const e = document.activeElement; return e.id || e.dataset.view || ''"
    wanted, met = set(page.execute_script(every)), set()
    focus(page, "query")
    for _ in range(100):
        met.add(page.execute_script(here))
        press(page, Keys.TAB)
    assert wanted <= met


def test_search_filters_marks_and_announces(page: Any) -> None:
    focus(page, "query")
    press(page, "B2")
    assert "1 group," in text(page, "hits") and "1 node marked" in text(page, "hits")
    rows = "return [...document.querySelectorAll('#channels tr[data-names]')].filter(r => !r.hidden).length"
    assert page.execute_script(rows) == 1
    nodes = "document.getElementById('graph-plot').data.filter(t => t.meta === 'nodes')"
    rings = page.execute_script(f"return {nodes}.flatMap(t => t.marker.line.width)")
    assert rings.count(4) == 1
    press(page, "-nowhere")
    assert text(page, "hits") == "nothing found"
    press(page, "\b" * len("B2-nowhere"))
    assert text(page, "hits") == "" and page.execute_script(rows) > 1


def test_the_theme_can_be_changed_and_is_remembered(page: Any, loaded: str) -> None:
    from selenium.webdriver.common.keys import Keys

    background = "return getComputedStyle(document.body).backgroundColor"
    bars = "return getComputedStyle(document.querySelector('#channels-plot .bars .point path')).fill"
    before = page.execute_script(background), page.execute_script(bars)
    focus(page, "theme")
    press(page, Keys.ENTER)
    after = page.execute_script(background), page.execute_script(bars)
    assert before[0] != after[0] and before[1] != after[1]
    page.get(loaded)
    assert drawn(page).execute_script(background) == after[0]
    page.execute_script("localStorage.clear()")


def test_the_graph_zooms_and_moves_by_keys_and_buttons(page: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    span = "const r = document.getElementById('graph-plot')._fullLayout.xaxis.range; return [r[0], r[1] - r[0]]"
    start = page.execute_script(span)
    focus(page, "graph-plot")
    press(page, "+")
    closer = page.execute_script(span)
    assert closer[1] < 0.7 * start[1]
    ActionChains(page).key_down(Keys.SHIFT).send_keys(Keys.ARROW_RIGHT).key_up(Keys.SHIFT).perform()
    assert page.execute_script(span)[0] > closer[0]
    page.execute_script("document.querySelector('[data-view=all]').click()")
    assert page.execute_script(span) == pytest.approx(start)


def test_the_cut_of_another_group_can_be_picked(page: Any) -> None:
    from selenium.webdriver.common.keys import Keys

    first = text(page, "cut-finding")
    focus(page, "pick")
    press(page, Keys.ARROW_DOWN)
    assert text(page, "cut-finding") not in (first, "")
    assert page.execute_script("return document.querySelectorAll('#cut-table tbody tr').length") > 0


def test_hostile_names_do_nothing(browser: Any, tmp_path: Path) -> None:
    report: Report = hostile()
    opened(browser, tmp_path, to_html(report, front()))
    from selenium.webdriver.common.keys import Keys

    for chart in ("channels", "importance", "graph"):
        focus(browser, f"{chart}-plot")
        press(browser, Keys.ARROW_RIGHT)
        assert "onerror" in text(browser, "said")
    assert browser.execute_script("return window.evil === undefined && document.images.length === 0")
    assert browser.execute_script("return document.querySelectorAll('[onerror]').length") == 0
    assert browser.get_log("browser") == []


def test_a_narrow_screen_needs_no_sideways_scrolling(browser: Any, tmp_path: Path) -> None:
    size = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened(browser, tmp_path, to_html(scored(), front()))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 375
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
