"""The status page in a real browser: what a person, or their screen reader, finds there."""

import dataclasses
import itertools
import time

import pytest

from modelpack.prefetch.status import (
    BudgetStatus,
    ConfigurationStatus,
    RuntimeStatus,
    Stage,
    Totals,
)
from tests.support.browser import PROGRAM, Browser
from tests.support.statuses import CANDIDATE, DIGEST, GIB, model, status
from tests.support.webdaemon import Daemon

pytestmark = pytest.mark.real(PROGRAM)

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    '"><svg onload=document.title="owned">',
    "</script><b>bold</b>",
    "${document.title='owned'} {{7*7}} &amp; &lt;b&gt;",
    "javascript:document.title='owned'",
]


@pytest.fixture(scope="module")
def browser():
    with Browser() as browser:
        yield browser


@pytest.fixture
def daemon(tmp_path, browser):
    """A daemon whose page is open; nothing may have been complained about in the end."""
    daemon = Daemon(tmp_path)
    browser.messages.clear()
    browser.look()
    with daemon.serve() as endpoints:
        daemon.url = endpoints.url
        yield daemon
        browser.open("about:blank")
    assert browser.messages == []


@pytest.fixture
def shows(browser, daemon):
    """Open the page on a status, and wait until it is drawn."""

    def show(value):
        daemon.status = value
        browser.open(daemon.url)
        browser.wait_for("!document.getElementById('main').hidden")

    return show


def look_again(browser):
    """Do what switching to the page's tab does: it asks at once."""
    browser.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def text(browser, selector):
    return browser.evaluate(f"document.querySelector({selector!r})?.innerText")


def row(name, inner=""):
    """An expression for a model's element."""
    return (
        "[...document.querySelectorAll('.model')]"
        f".find((node) => node.querySelector('.name').textContent === {name!r})"
        + (f".querySelector({inner!r})" if inner else "")
    )


def row_text(browser, name):
    return browser.evaluate(f"{row(name)}.innerText")


def test_everything_about_a_model_is_said(browser, shows):
    now = time.time()
    shows(
        status(
            model(
                "chat",
                mounted=True,
                ready_at=now - 7200,
                used_at=now,
                fetched_bytes=GIB,
                reused_bytes=3 * GIB,
                priority=7,
                held=True,
                reason="held since a rollback",
                timings={"Resolving": 0.25, "Downloading": 90.0, "Importing": 8.0},
            )
        )
    )
    said = row_text(browser, "chat")
    for part in (
        "chat",
        "registry.example/models/chat:v1",
        "sha256:0a0a0a0a0a0a…",
        "priority 7",
        "held",
        "Ready",
        "4.0 GiB",
        "1.0 GiB fetched",
        "3.0 GiB were here already",
        "Resolving 0.3 s",
        "Downloading 1 min 30 s",
        "Importing 8.0 s",
        "Mounted now",
        "ready 2 h ago",
        "held since a rollback",
    ):
        assert part in said, part
    assert browser.evaluate(f"{row('chat', '.digest code')}.title") == DIGEST
    assert text(browser, "#verdict") == "Ready"
    assert text(browser, "#node") == "node-a"
    assert (
        browser.evaluate("document.title") == "Ready 1/1 \N{EN DASH} node-a \N{EN DASH} modelpack"
    )
    assert "modelpack 1.2.3 · containerd · up 1 d 1 h · configuration 3" in text(browser, "#about")


def test_progress_moves_with_the_daemon(browser, daemon, shows):
    def at(gigabytes, seconds):
        return status(
            model(
                "code",
                Stage.DOWNLOADING,
                bytes=10 * GIB,
                candidate=CANDIDATE,
                fetched_bytes=gigabytes * GIB,
                reused_bytes=2 * GIB,
                timings={"Downloading": float(seconds)},
            ),
            now=began + seconds,
        )

    began = time.time()
    shows(at(1, 2))
    bar = row("code", "[role=progressbar]")
    assert browser.evaluate(f"{bar}.getAttribute('aria-valuenow')") == "30"
    assert "3.0 GiB of 10.0 GiB" in row_text(browser, "code")
    assert "512.0 MiB/s, 14 s left" in row_text(browser, "code")
    browser.evaluate(f"window.kept = {row('code')}")
    daemon.status = at(5, 6)
    browser.wait_for(f"{bar}.getAttribute('aria-valuenow') === '70'")
    assert "1.0 GiB/s, 3.0 s left" in row_text(browser, "code")
    width = browser.evaluate(f"{bar}.getBoundingClientRect().width")
    browser.wait_for(
        f"Math.abs({bar}.querySelector('.fetched').getBoundingClientRect().width - {width / 2}) < 2"
    )
    assert text(browser, "#verdict") == "Not ready"
    assert text(browser, "[data-banner=unready]") == "Not ready yet\ncode: Downloading"
    daemon.status = status(model("code", reused_bytes=2 * GIB, fetched_bytes=8 * GIB))
    browser.wait_for(f"{row('code', '.stage')}.textContent === 'Ready'")
    # told to a screen reader, in the same element as before
    assert text(browser, "#news") == "code: Ready."
    assert browser.evaluate(f"window.kept === {row('code')}")
    assert text(browser, "#verdict") == "Ready"
    assert browser.evaluate("document.querySelector('[data-banner=unready]')") is None


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_and_reason_is_shown(browser, shows, stage):
    shows(status(model("m", stage, reason="this is why", next_attempt=time.time() + 125)))
    word = "Insufficient space" if stage is Stage.INSUFFICIENT_SPACE else str(stage)
    assert browser.evaluate(f"{row('m', '.stage')}.textContent") == word
    assert "this is why Next try in 2 min" in row_text(browser, "m")
    heading = {
        "Ready": "Ready (1)",
        "Refused": "Needs attention (1)",
        "Failed": "Needs attention (1)",
    }
    heading["InsufficientSpace"] = "Needs attention (1)"
    shown = browser.evaluate(
        "[...document.querySelectorAll('h3')].filter(h => h.offsetParent)[0].innerText"
    )
    assert shown == heading.get(str(stage), "On the way (1)")


def test_when_the_next_try_is_due_is_said_once(browser, shows):
    shows(status(model("m", Stage.FAILED, reason="no; try 2 follows in 30s", next_attempt=2e9)))
    assert browser.evaluate(f"{row('m', '.reason')}.innerText.trim()") == "no; try 2 follows in 30s"


def test_an_update_shows_both_versions(browser, shows):
    shows(status(model("m", Stage.DOWNLOADING, digest=DIGEST, candidate=CANDIDATE, mounted=True)))
    assert "sha256:0a0a0a0a0a0a… next sha256:1b1b1b1b1b1b…" in row_text(browser, "m")
    assert "Mounted now" in row_text(browser, "m")
    assert text(browser, "#tile-ready") == "1 of 1"


def test_evidence_of_use(browser, shows):
    now = time.time()
    shows(
        status(
            model("a", mounted=True),
            model("b", used_at=now - 3 * 3600),
            model("c"),
            model("d", Stage.PENDING),
            totals=Totals(imports=5, used_models=2, fetched_bytes=GIB, reused_bytes=3 * GIB),
        )
    )
    assert "Mounted now" in row_text(browser, "a")
    assert "Used 3 h ago" in row_text(browser, "b")
    assert "Not used yet" in row_text(browser, "c")
    assert "use" not in row_text(browser, "d").lower()
    assert text(browser, "#tile-used") == "2 of 3"
    assert text(browser, "#tile-used-note") == "1 mounted now; since start, 2 of 5 imports"
    assert text(browser, "#tile-saved") == "75 %"


def test_the_budget_is_drawn_to_scale(browser, shows):
    shows(status(model()))
    bar = "document.getElementById('disk-bar')"
    left, width = browser.evaluate(
        f"(({{left, width}}) => [left, width])({bar}.getBoundingClientRect())"
    )

    def place(selector, side):
        return browser.evaluate(f"{bar}.querySelector('{selector}').getBoundingClientRect().{side}")

    assert place(".used", "right") - left == pytest.approx(width * 8 / 20, abs=1)
    assert place(".reserved", "right") - left == pytest.approx(width * 10 / 20, abs=1)
    assert place(".high", "left") - left == pytest.approx(width * 18 / 20, abs=2)
    assert place(".low", "left") - left == pytest.approx(width * 16 / 20, abs=2)
    assert text(browser, "#disk-text") == "8.0 GiB of 20.0 GiB used"
    assert "free 10.0 GiB" in text(browser, "#disk-legend")
    assert browser.evaluate(f"{bar}.getAttribute('aria-label')") == (
        "8.0 GiB of 20.0 GiB used, 2.0 GiB reserved; eviction above 18.0 GiB"
    )


def test_above_the_watermark_is_marked(browser, shows):
    budget = BudgetStatus(limit=20 * GIB, used=19 * GIB, reserved=9 * GIB, high=18 * GIB, low=16)
    shows(status(model(), budget=budget))
    assert browser.evaluate("document.querySelector('.disk').classList.contains('over')")
    bar = "document.getElementById('disk-bar')"
    assert browser.evaluate(f"{bar}.scrollWidth <= {bar}.clientWidth + 1")


def test_what_is_wrong_stands_on_top(browser, daemon, shows):
    shows(
        status(
            model("a", Stage.PENDING),
            configuration=ConfigurationStatus(
                path="/etc/d.yaml", loaded_at=time.time(), generation=2, error="line 3: no such key"
            ),
            runtime=RuntimeStatus(kind="containerd", reachable=False, reason="connection refused"),
        )
    )
    banners = text(browser, "#banners")
    assert "The configuration was turned down; the one before stays in force" in banners
    assert "line 3: no such key (/etc/d.yaml; in force: number 2)" in banners
    assert "The runtime (containerd) cannot be used\nconnection refused" in banners
    assert "Not ready yet\na: Pending" in banners
    assert browser.evaluate("document.getElementById('banners').getAttribute('role')") == "alert"
    daemon.status = status(model("a"))
    look_again(browser)
    browser.wait_for("document.querySelectorAll('.banner[data-banner]').length === 0")


def test_a_main_loop_that_hangs_is_told(browser, shows):
    shows(status(model(), alive_at=time.time() - 600, now=time.time() - 600))
    assert "The daemon's main loop has stopped" in text(browser, "#banners")


def test_stopping_is_told(browser, shows):
    shows(status(model(), stopping=True))
    assert text(browser, "#verdict") == "Stopping"


def test_no_models_and_no_match_are_told(browser, daemon, shows):
    shows(status())
    assert text(browser, "#empty") == "No model is wanted on this node."
    assert not browser.evaluate("document.getElementById('filter').offsetParent")
    daemon.status = status(*(model(f"m{n}") for n in range(12)))
    look_again(browser)
    browser.wait_for("document.querySelectorAll('.model').length === 12")
    assert not browser.evaluate("document.getElementById('empty').offsetParent")
    search = "document.getElementById('filter')"
    browser.evaluate(f"{search}.value = 'm1'; {search}.dispatchEvent(new Event('input'))")
    shown = "[...document.querySelectorAll('.model')].filter((node) => node.offsetParent).length"
    assert browser.evaluate(shown) == 3
    browser.evaluate(f"{search}.value = 'zebra'; {search}.dispatchEvent(new Event('input'))")
    assert browser.evaluate(shown) == 0
    assert text(browser, "#empty") == "No model matches the filter."


def test_a_daemon_that_goes_away_and_comes_back(browser, tmp_path):
    daemon = Daemon(tmp_path)
    with daemon.serve() as endpoints:
        browser.open(endpoints.url)
        browser.wait_for("document.querySelectorAll('.model').length === 1")
    look_again(browser)
    browser.wait_for("document.getElementById('verdict').textContent === 'No answer'")
    told = text(browser, "[data-banner=away]")
    assert told.startswith("The daemon does not answer\nSince ")
    assert "no connection. Below is what it said last. Trying again." in told
    assert "chat" in row_text(browser, "chat")
    port = int(endpoints.url.rstrip("/").rpartition(":")[2])
    again = Daemon(tmp_path, listen=("127.0.0.1", port))
    again.status = status(model("other"))
    with again.serve():
        browser.wait_for("document.getElementById('verdict').textContent === 'Ready'")
        assert browser.evaluate("document.querySelector('[data-banner=away]')") is None
        assert browser.evaluate("document.querySelectorAll('.model').length") == 1
        assert row_text(browser, "other")
        browser.open("about:blank")


@pytest.mark.parametrize("text_", HOSTILE, ids=range(len(HOSTILE)))
def test_markup_from_anywhere_is_text(browser, shows, text_):
    elements = "document.querySelectorAll('body *').length"
    plain = status(
        model("plain", Stage.FAILED, reference="r", reason="x", digest="x", candidate="y"),
        node="n",
        version="v",
        runtime=RuntimeStatus(kind="k", reachable=False, reason="x"),
        configuration=ConfigurationStatus(path="p", loaded_at=1.0, generation=1, error="e"),
        totals=Totals(failures={"f": 1}),
    )
    shows(plain)
    number = browser.evaluate(elements)
    shows(
        dataclasses.replace(
            plain,
            node=text_,
            version=text_,
            runtime=RuntimeStatus(kind=text_, reachable=False, reason=text_),
            configuration=ConfigurationStatus(path=text_, loaded_at=1.0, generation=1, error=text_),
            totals=Totals(failures={text_: 1}),
            models=(
                model(
                    text_, Stage.FAILED, reference="r", reason=text_, digest=text_, candidate="y"
                ),
            ),
        )
    )
    time.sleep(0.1)
    assert browser.evaluate(elements) == number
    assert "owned" not in browser.evaluate("document.title").replace(text_, "")
    assert browser.evaluate("document.querySelector('.name').textContent") == text_
    assert browser.evaluate("document.querySelector('.reason span').textContent") == text_
    assert browser.evaluate("document.getElementById('node').textContent") == text_


def test_nothing_else_can_run_or_be_loaded(browser, daemon, shows):
    shows(status(model()))
    browser.evaluate(
        "document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src="http://127.0.0.1:9/x.png"><b onclick="document.title=1">b</b>\');'
        " document.querySelector('b').click();"
        " document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.title = 2'}))"
    )
    elsewhere = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')"
    assert browser.evaluate(elsewhere) == "blocked"
    assert "modelpack" in browser.evaluate("document.title")
    refused = browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert refused is None
    assert sum("Content Security Policy" in said for said in browser.messages) >= 4
    browser.messages.clear()


def test_it_is_usable_with_the_keyboard_alone(browser, shows):
    shows(status(*(model(f"m{n}") for n in range(9))))
    reached = []
    for _ in range(6):
        browser.press("Tab")
        reached.append(
            browser.evaluate("document.activeElement.innerText || document.activeElement.id")
        )
    assert reached[:2] == ["Skip to the models", "filter"]
    assert {"status as JSON", "metrics", "readiness"} <= set(reached)
    browser.evaluate("document.querySelector('.skip').focus()")
    assert browser.evaluate("document.querySelector('.skip').getBoundingClientRect().height") > 10


def test_typing_in_the_filter_is_not_disturbed(browser, daemon, shows):
    shows(status(*(model(f"m{n}", Stage.DOWNLOADING) for n in range(9))))
    browser.evaluate("document.getElementById('filter').focus()")
    daemon.status = status(*(model(f"m{n}") for n in range(9)))
    look_again(browser)
    browser.wait_for(f"{row('m0', '.stage')}.textContent === 'Ready'")
    assert browser.evaluate("document.activeElement.id") == "filter"


def test_it_is_well_formed_for_assistive_technology(browser, shows):
    shows(status(model("a", Stage.DOWNLOADING, fetched_bytes=GIB), model("b", Stage.IMPORTING)))
    assert browser.evaluate("document.documentElement.lang") == "en"
    assert browser.evaluate(
        "[...document.querySelectorAll('[id]')].length"
        " === new Set([...document.querySelectorAll('[id]')].map((node) => node.id)).size"
    )
    assert browser.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')]"
        ".every((node) => document.getElementById(node.getAttribute('aria-labelledby')))"
    )
    levels = browser.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter((node) => node.offsetParent)"
        ".map((node) => Number(node.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    # a bar without a known share says so by having no value
    assert (
        browser.evaluate(f"{row('b', '[role=progressbar]')}.hasAttribute('aria-valuenow')") is False
    )
    assert browser.evaluate(f"{row('a', '[role=progressbar]')}.getAttribute('aria-valuetext')") == (
        "Downloading, 1.0 GiB of 4.0 GiB"
    )


CONTRAST = """
(() => {
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const back = (node) => {
    const color = rgb(getComputedStyle(node).backgroundColor);
    return color.length === 4 && color[3] === 0 ? back(node.parentElement) : color;
  };
  const poor = [];
  for (const node of document.querySelectorAll('body *')) {
    const own = [...node.childNodes].some((one) => one.nodeType === 3 && one.data.trim());
    if (!own || !node.offsetParent) continue;
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(back(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.className} ${node.innerText}: ${ratio.toFixed(2)}`);
  }
  return poor;
})()
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast_enough(browser, shows, scheme):
    """WCAG 2.2, success criterion 1.4.3."""
    browser.look(scheme=scheme)
    shows(
        status(
            *(model(str(stage), stage, reason="why", held=True, priority=1) for stage in Stage),
            model(
                "mounted", mounted=True, fetched_bytes=1, reused_bytes=1, timings={"Importing": 1.0}
            ),
            configuration=ConfigurationStatus(path="p", loaded_at=1.0, generation=1, error="e"),
            runtime=RuntimeStatus(kind="k", reachable=False, reason="x"),
        )
    )
    assert browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(246, 247, 249)" if scheme == "light" else "rgb(16, 20, 27)"
    )
    assert browser.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 420, 768, 1600])
def test_nothing_sticks_out_on_any_screen(browser, shows, width):
    browser.look(width=width)
    long = "registry.example/" + "a-very-long-name-" * 12
    shows(
        status(
            model(long, Stage.FAILED, reference=long + ":v1", reason=long * 3),
            model("x", Stage.DOWNLOADING, digest=DIGEST, candidate=CANDIDATE, fetched_bytes=GIB),
            node=long,
        )
    )
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


def test_motion_is_left_out_for_who_wants_none(browser, shows):
    browser.look(prefers_reduced_motion="reduce")
    shows(status(model("a", Stage.IMPORTING)))
    style = f"getComputedStyle({row('a', '.track')}, '::after').animationName"
    assert browser.evaluate(style) == "none"


def test_a_thousand_models_are_drawn(browser, shows):
    shows(status(*(model(f"m{n}", Stage.READY if n % 2 else Stage.PENDING) for n in range(1000))))
    assert browser.evaluate("document.querySelectorAll('.model').length") == 1000
    assert text(browser, "#tile-ready") == "500 of 1000"
