"""The status page in a real browser: what a person, or their screen reader, finds there."""

import time

import pytest

from modelpack.prefetch.status import (
    BudgetStatus,
    ConfigurationStatus,
    RuntimeStatus,
    Stage,
    Totals,
)
from tests.support.browser import PROGRAM
from tests.support.command import Command
from tests.support.faultregistry import FaultRegistry
from tests.support.models import random_bytes, write_files
from tests.support.statuses import CANDIDATE, DIGEST, GIB, model, status
from tests.support.statuspage import RunningDaemon, StatusPage, row
from tests.support.webdaemon import Daemon

pytestmark = pytest.mark.real(PROGRAM)


def test_everything_about_a_model_is_said(page):
    now = time.time()
    page.show(
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
    said = page.row_text("chat")
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
    assert page.browser.evaluate(f"{row('chat', '.digest code')}.title") == DIGEST
    assert page.text("#verdict") == "Ready"
    assert page.text("#node") == "node-a"
    assert (
        page.browser.evaluate("document.title")
        == "Ready 1/1 \N{EN DASH} node-a \N{EN DASH} modelpack"
    )
    assert "modelpack 1.2.3 · containerd · up 1 d 1 h · configuration 3" in page.text("#about")


def test_progress_moves_with_the_daemon(page):
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
    page.show(at(1, 2))
    bar = row("code", "[role=progressbar]")
    assert page.browser.evaluate(f"{bar}.getAttribute('aria-valuenow')") == "30"
    assert "3.0 GiB of 10.0 GiB" in page.row_text("code")
    assert "512.0 MiB/s, 14 s left" in page.row_text("code")
    page.browser.evaluate(f"window.kept = {row('code')}")
    page.daemon.status = at(5, 6)
    page.browser.wait_for(f"{bar}.getAttribute('aria-valuenow') === '70'")
    assert "1.0 GiB/s, 3.0 s left" in page.row_text("code")
    width = page.browser.evaluate(f"{bar}.getBoundingClientRect().width")
    page.browser.wait_for(
        f"Math.abs({bar}.querySelector('.fetched').getBoundingClientRect().width - {width / 2}) < 2"
    )
    assert page.text("#verdict") == "Not ready"
    assert page.text("[data-banner=unready]") == "Not ready yet\ncode: Downloading"
    page.daemon.status = status(model("code", reused_bytes=2 * GIB, fetched_bytes=8 * GIB))
    page.browser.wait_for(f"{row('code', '.stage')}.textContent === 'Ready'")
    # told to a screen reader, in the same element as before
    assert page.text("#news") == "code: Ready."
    assert page.browser.evaluate(f"window.kept === {row('code')}")
    assert page.text("#verdict") == "Ready"
    assert page.browser.evaluate("document.querySelector('[data-banner=unready]')") is None


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_and_reason_is_shown(page, stage):
    page.show(status(model("m", stage, reason="this is why", next_attempt=time.time() + 125)))
    word = "Insufficient space" if stage is Stage.INSUFFICIENT_SPACE else str(stage)
    assert page.browser.evaluate(f"{row('m', '.stage')}.textContent") == word
    assert "this is why Next try in 2 min" in page.row_text("m")
    heading = {
        "Ready": "Ready (1)",
        "Refused": "Needs attention (1)",
        "Failed": "Needs attention (1)",
    }
    heading["InsufficientSpace"] = "Needs attention (1)"
    shown = page.browser.evaluate(
        "[...document.querySelectorAll('h3')].filter(h => h.offsetParent)[0].innerText"
    )
    assert shown == heading.get(str(stage), "On the way (1)")


def test_when_the_next_try_is_due_is_said_once(page):
    page.show(status(model("m", Stage.FAILED, reason="no; try 2 follows in 30s", next_attempt=2e9)))
    assert (
        page.browser.evaluate(f"{row('m', '.reason')}.innerText.trim()")
        == "no; try 2 follows in 30s"
    )


def test_an_update_shows_both_versions(page):
    page.show(
        status(model("m", Stage.DOWNLOADING, digest=DIGEST, candidate=CANDIDATE, mounted=True))
    )
    assert "sha256:0a0a0a0a0a0a… next sha256:1b1b1b1b1b1b…" in page.row_text("m")
    assert "Mounted now" in page.row_text("m")
    assert page.text("#tile-ready") == "1 of 1"


def test_evidence_of_use(page):
    now = time.time()
    page.show(
        status(
            model("a", mounted=True),
            model("b", used_at=now - 3 * 3600),
            model("c"),
            model("d", Stage.PENDING),
            totals=Totals(imports=5, used_models=2, fetched_bytes=GIB, reused_bytes=3 * GIB),
        )
    )
    assert "Mounted now" in page.row_text("a")
    assert "Used 3 h ago" in page.row_text("b")
    assert "Not used yet" in page.row_text("c")
    assert "use" not in page.row_text("d").lower()
    assert page.text("#tile-used") == "2 of 3"
    assert page.text("#tile-used-note") == "1 mounted now; since start, 2 of 5 imports"
    assert page.text("#tile-saved") == "75 %"


def test_the_budget_is_drawn_to_scale(page):
    page.show(status(model()))
    bar = "document.getElementById('disk-bar')"
    left, width = page.browser.evaluate(
        f"(({{left, width}}) => [left, width])({bar}.getBoundingClientRect())"
    )

    def place(selector, side):
        return page.browser.evaluate(
            f"{bar}.querySelector('{selector}').getBoundingClientRect().{side}"
        )

    assert place(".used", "right") - left == pytest.approx(width * 8 / 20, abs=1)
    assert place(".reserved", "right") - left == pytest.approx(width * 10 / 20, abs=1)
    assert place(".high", "left") - left == pytest.approx(width * 18 / 20, abs=2)
    assert place(".low", "left") - left == pytest.approx(width * 16 / 20, abs=2)
    assert page.text("#disk-text") == "8.0 GiB of 20.0 GiB used"
    assert "free 10.0 GiB" in page.text("#disk-legend")
    assert page.browser.evaluate(f"{bar}.getAttribute('aria-label')") == (
        "8.0 GiB of 20.0 GiB used, 2.0 GiB reserved; eviction above 18.0 GiB"
    )


def test_above_the_watermark_is_marked(page):
    budget = BudgetStatus(limit=20 * GIB, used=19 * GIB, reserved=9 * GIB, high=18 * GIB, low=16)
    page.show(status(model(), budget=budget))
    assert page.browser.evaluate("document.querySelector('.disk').classList.contains('over')")
    bar = "document.getElementById('disk-bar')"
    assert page.browser.evaluate(f"{bar}.scrollWidth <= {bar}.clientWidth + 1")


def test_what_is_wrong_stands_on_top(page):
    page.show(
        status(
            model("a", Stage.PENDING),
            configuration=ConfigurationStatus(
                path="/etc/d.yaml", loaded_at=time.time(), generation=2, error="line 3: no such key"
            ),
            runtime=RuntimeStatus(kind="containerd", reachable=False, reason="connection refused"),
        )
    )
    banners = page.text("#banners")
    assert "The configuration was turned down; the one before stays in force" in banners
    assert "line 3: no such key (/etc/d.yaml; in force: number 2)" in banners
    assert "The runtime (containerd) cannot be used\nconnection refused" in banners
    assert "Not ready yet\na: Pending" in banners
    assert (
        page.browser.evaluate("document.getElementById('banners').getAttribute('role')") == "alert"
    )
    page.daemon.status = status(model("a"))
    page.look_again()
    page.browser.wait_for("document.querySelectorAll('.banner[data-banner]').length === 0")


def test_a_main_loop_that_hangs_is_told(page):
    page.show(status(model(), alive_at=time.time() - 600, now=time.time() - 600))
    assert "The daemon's main loop has stopped" in page.text("#banners")


def test_stopping_is_told(page):
    page.show(status(model(), stopping=True))
    assert page.text("#verdict") == "Stopping"


def test_no_models_and_no_match_are_told(page):
    page.show(status())
    assert page.text("#empty") == "No model is wanted on this node."
    assert not page.browser.evaluate("document.getElementById('filter').offsetParent")
    page.daemon.status = status(*(model(f"m{n}") for n in range(12)))
    page.look_again()
    page.browser.wait_for("document.querySelectorAll('.model').length === 12")
    assert not page.browser.evaluate("document.getElementById('empty').offsetParent")
    search = "document.getElementById('filter')"
    page.browser.evaluate(f"{search}.value = 'm1'; {search}.dispatchEvent(new Event('input'))")
    shown = "[...document.querySelectorAll('.model')].filter((node) => node.offsetParent).length"
    assert page.browser.evaluate(shown) == 3
    page.browser.evaluate(f"{search}.value = 'zebra'; {search}.dispatchEvent(new Event('input'))")
    assert page.browser.evaluate(shown) == 0
    assert page.text("#empty") == "No model matches the filter."


def test_a_daemon_that_goes_away_and_comes_back(browser, tmp_path):
    browser.look()
    with Daemon(tmp_path).serve() as endpoints:
        page = StatusPage(browser, endpoints.url)
        page.open()
    page.look_again()
    browser.wait_for("document.getElementById('verdict').textContent === 'No answer'")
    told = page.text("[data-banner=away]")
    assert told.startswith("The daemon does not answer\nSince ")
    assert "no connection. Below is what it said last. Trying again." in told
    assert "chat" in page.row_text("chat")
    port = int(endpoints.url.rstrip("/").rpartition(":")[2])
    again = Daemon(tmp_path, listen=("127.0.0.1", port))
    again.status = status(model("other"))
    with again.serve():
        browser.wait_for("document.getElementById('verdict').textContent === 'Ready'")
        assert browser.evaluate("document.querySelector('[data-banner=away]')") is None
        assert browser.evaluate("document.querySelectorAll('.model').length") == 1
        assert page.row_text("other")
        browser.open("about:blank")


def test_a_real_daemon_is_watched_from_nothing_to_ready(browser, tmp_path):
    browser.look()
    write_files(tmp_path / "model", {"weights.bin": random_bytes(12_000_000), "config.json": b"{}"})
    command = Command(tmp_path / "home")
    with FaultRegistry() as registry:
        reference = f"{registry.host}/team/chat:v1"
        pushed = command.json("push", tmp_path / "model", reference)
        models = [
            {"name": "chat", "ref": reference},
            {"name": "gone", "ref": f"{registry.host}/team/gone:v1"},
        ]
        settings = {"limitRate": "2M", "models": models}
        with RunningDaemon(tmp_path, env=command.env, **settings) as daemon:
            page = StatusPage(browser, daemon.url)
            page.open()
            bar = row("chat", "[role=progressbar]")
            browser.wait_for(f"Number({bar}.getAttribute('aria-valuenow')) > 1")
            assert "MiB of 11.5 MiB" in page.row_text("chat")
            assert page.text("#verdict") == "Not ready"
            browser.wait_for(f"{row('chat', '.stage')}.textContent === 'Ready'")
            assert browser.evaluate(f"{row('chat', 'code')}.title") == pushed["digest"]
            assert "Downloading" in page.text(".model[data-kind=ready] .times-text")
            browser.wait_for(f"{row('gone', '.stage')}.textContent === 'Failed'")
            assert "MANIFEST_UNKNOWN" in page.row_text("gone")
            assert page.text("#verdict") == "Ready"
            shown = command.run("daemon", "status", "--url", daemon.url)
            assert (shown.returncode, shown.stderr) == (0, "")
            browser.open("about:blank")
