"""The page of a training in a real browser: modules over checkpoints beside coefficients, ledgers and losses."""

import re

import pytest
from cases_page import HOSTILE, NARROW, WIDE, Open, Service, sound
from playwright.sync_api import expect


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide", "narrow"])
def test_modules_are_followed_over_training(service: Service, visit: Open, size: dict[str, int], scheme: str) -> None:
    page = visit(service.url, viewport=size, color_scheme=scheme)
    page.get_by_role("link", name=f"Training of {HOSTILE}").click()
    expect(page.get_by_role("heading", name=HOSTILE)).to_be_visible()
    picture = page.get_by_role("img", name=re.compile(r"^Modules over training.*split at 2"))
    expect(picture).to_be_visible()
    shared = [int(text.split()[0]) for text in picture.locator("path title").all_text_contents()]
    assert len(shared) == 2, "two modules come from one"
    heights = [box["height"] for path in picture.locator("path").all() if (box := path.bounding_box())]
    assert (heights[0] > heights[1]) == (shared[0] > shared[1])
    expect(page.get_by_role("img", name=re.compile("^loss"))).to_be_visible()
    expect(page.get_by_role("heading", name="Learning coefficient, ε 0.001")).to_be_visible()
    drawn = page.get_by_role("img", name=re.compile("^Learning coefficient"))
    expect(drawn).to_have_attribute(
        "aria-label", re.compile("2.5 at 1, 2.5 at 2$")
    )  # not at 0.01, not of some parameters
    expect(page.get_by_text(re.compile("^interbasis ledger"))).to_be_visible()
    expect(page.get_by_role("cell", name="split of 0 to 0, 1")).to_be_visible()
    sound(page)
    page.get_by_label("Steps").select_option("to scale")
    expect(page).to_have_url(re.compile("scaled=1"))
    page.get_by_role("rowheader", name="2").get_by_role("link").click()
    expect(page).to_have_url(re.compile("/graph/"))
    page.get_by_role("link", name="Training", exact=True).click()
    expect(picture).to_be_visible()


def test_coefficients_and_ledgers_stand_on_the_same_steps(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/training/digits", refused=(404,))
    expect(page.get_by_role("img", name=re.compile(r"^Learning coefficient.*at 100$"))).to_be_visible()
    ledger = page.get_by_role("img", name=re.compile("^Number of parameters. effective: 15 at 100"))
    places = [
        float(x or 0)
        for x in (ledger.locator("rect").first.get_attribute("x"), page.locator("circle").first.get_attribute("cx"))
    ]
    wide = float(ledger.locator("rect").first.get_attribute("width") or 0)
    assert places[0] + wide / 2 == pytest.approx(places[1])
    expect(page.get_by_text("interbasis track digits")).to_be_visible()
    sound(page)
    page.goto(f"{service.url}#/training/t-00000000")
    expect(page.get_by_role("alert")).to_contain_text("no tracking")
