"""The status page in a real browser: nothing gets in, and nobody is left out."""

import dataclasses
import itertools
import time

import pytest

from modelpack.prefetch.status import ConfigurationStatus, RuntimeStatus, Stage, Totals
from tests.support.browser import PROGRAM
from tests.support.statuses import CANDIDATE, DIGEST, GIB, model, status
from tests.support.statuspage import row

pytestmark = pytest.mark.real(PROGRAM)

HOSTILE = [
    "<img src=x onerror=\"document.title='owned'\">",
    "<script>document.title='owned'</script>",
    '"><svg onload=document.title="owned">',
    "</script><b>bold</b>",
    "${document.title='owned'} {{7*7}} &amp; &lt;b&gt;",
    "javascript:document.title='owned'",
]


@pytest.mark.parametrize("text_", HOSTILE, ids=range(len(HOSTILE)))
def test_markup_from_anywhere_is_text(page, text_):
    elements = "document.querySelectorAll('body *').length"
    plain = status(
        model("plain", Stage.FAILED, reference="r", reason="x", digest="x", candidate="y"),
        node="n",
        version="v",
        runtime=RuntimeStatus(kind="k", reachable=False, reason="x"),
        configuration=ConfigurationStatus(path="p", loaded_at=1.0, generation=1, error="e"),
        totals=Totals(failures={"f": 1}),
    )
    page.show(plain)
    number = page.browser.evaluate(elements)
    page.show(
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
    assert page.browser.evaluate(elements) == number
    assert "owned" not in page.browser.evaluate("document.title").replace(text_, "")
    assert page.browser.evaluate("document.querySelector('.name').textContent") == text_
    assert page.browser.evaluate("document.querySelector('.reason span').textContent") == text_
    assert page.browser.evaluate("document.getElementById('node').textContent") == text_


def test_nothing_else_can_run_or_be_loaded(page):
    page.show(status(model()))
    page.browser.evaluate(
        "document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src="http://127.0.0.1:9/x.png"><b onclick="document.title=1">b</b>\');'
        " document.querySelector('b').click();"
        " document.body.append(Object.assign(document.createElement('script'),"
        " {textContent: 'document.title = 2'}))"
    )
    elsewhere = "fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'blocked')"
    assert page.browser.evaluate(elsewhere) == "blocked"
    assert "modelpack" in page.browser.evaluate("document.title")
    refused = page.browser.evaluate("new Promise((done) => setTimeout(done, 100))")
    assert refused is None
    assert sum("Content Security Policy" in said for said in page.browser.messages) >= 4
    page.browser.messages.clear()


def test_it_is_usable_with_the_keyboard_alone(page):
    page.show(status(*(model(f"m{n}") for n in range(9))))
    reached = []
    for _ in range(6):
        page.browser.press("Tab")
        reached.append(
            page.browser.evaluate("document.activeElement.innerText || document.activeElement.id")
        )
    assert reached[:2] == ["Skip to the models", "filter"]
    assert {"status as JSON", "metrics", "readiness"} <= set(reached)
    page.browser.evaluate("document.querySelector('.skip').focus()")
    assert (
        page.browser.evaluate("document.querySelector('.skip').getBoundingClientRect().height") > 10
    )


def test_typing_in_the_filter_is_not_disturbed(page):
    page.show(status(*(model(f"m{n}", Stage.DOWNLOADING) for n in range(9))))
    page.browser.evaluate("document.getElementById('filter').focus()")
    page.daemon.status = status(*(model(f"m{n}") for n in range(9)))
    page.look_again()
    page.browser.wait_for(f"{row('m0', '.stage')}.textContent === 'Ready'")
    assert page.browser.evaluate("document.activeElement.id") == "filter"


def test_it_is_well_formed_for_assistive_technology(page):
    page.show(status(model("a", Stage.DOWNLOADING, fetched_bytes=GIB), model("b", Stage.IMPORTING)))
    assert page.browser.evaluate("document.documentElement.lang") == "en"
    assert page.browser.evaluate(
        "[...document.querySelectorAll('[id]')].length"
        " === new Set([...document.querySelectorAll('[id]')].map((node) => node.id)).size"
    )
    assert page.browser.evaluate(
        "[...document.querySelectorAll('[aria-labelledby]')]"
        ".every((node) => document.getElementById(node.getAttribute('aria-labelledby')))"
    )
    levels = page.browser.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter((node) => node.offsetParent)"
        ".map((node) => Number(node.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    # a bar without a known share says so by having no value
    assert (
        page.browser.evaluate(f"{row('b', '[role=progressbar]')}.hasAttribute('aria-valuenow')")
        is False
    )
    assert page.browser.evaluate(
        f"{row('a', '[role=progressbar]')}.getAttribute('aria-valuetext')"
    ) == ("Downloading, 1.0 GiB of 4.0 GiB")


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
def test_every_text_has_contrast_enough(page, scheme):
    """WCAG 2.2, success criterion 1.4.3."""
    page.browser.look(scheme=scheme)
    page.show(
        status(
            *(model(str(stage), stage, reason="why", held=True, priority=1) for stage in Stage),
            model(
                "mounted", mounted=True, fetched_bytes=1, reused_bytes=1, timings={"Importing": 1.0}
            ),
            configuration=ConfigurationStatus(path="p", loaded_at=1.0, generation=1, error="e"),
            runtime=RuntimeStatus(kind="k", reachable=False, reason="x"),
        )
    )
    assert page.browser.evaluate("getComputedStyle(document.body).backgroundColor") == (
        "rgb(246, 247, 249)" if scheme == "light" else "rgb(16, 20, 27)"
    )
    assert page.browser.evaluate(CONTRAST) == []


@pytest.mark.parametrize("width", [320, 420, 768, 1600])
def test_nothing_sticks_out_on_any_screen(page, width):
    page.browser.look(width=width)
    long = "registry.example/" + "a-very-long-name-" * 12
    page.show(
        status(
            model(long, Stage.FAILED, reference=long + ":v1", reason=long * 3),
            model("x", Stage.DOWNLOADING, digest=DIGEST, candidate=CANDIDATE, fetched_bytes=GIB),
            node=long,
        )
    )
    assert page.browser.evaluate("document.documentElement.scrollWidth") <= width


def test_motion_is_left_out_for_who_wants_none(page):
    page.browser.look(prefers_reduced_motion="reduce")
    page.show(status(model("a", Stage.IMPORTING)))
    style = f"getComputedStyle({row('a', '.track')}, '::after').animationName"
    assert page.browser.evaluate(style) == "none"


def test_a_thousand_models_are_drawn(page):
    page.show(
        status(*(model(f"m{n}", Stage.READY if n % 2 else Stage.PENDING) for n in range(1000)))
    )
    assert page.browser.evaluate("document.querySelectorAll('.model').length") == 1000
    assert page.text("#tile-ready") == "500 of 1000"
