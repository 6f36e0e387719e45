"""The pages of modules and nodes in a real browser: cards, pictures of the division, and labels edited in place."""

import re
from pathlib import Path

import httpx
import pytest
from cases_page import HOSTILE, NARROW, WIDE, Open, Service, serve, sound, stop
from cases_store import save_graph, save_partition
from cases_studied import TOKEN
from playwright.sync_api import expect

from interbasis.service.store.store import Store


@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "dark"), (NARROW, "light")], ids=["wide", "narrow"])
def test_cards_say_what_modules_and_nodes_do(service: Service, visit: Open, size: dict[str, int], scheme: str) -> None:
    """Hostile names and tokens are shown as they are."""
    page = visit(f"{service.url}#/graph/{service.partition}", viewport=size, color_scheme=scheme)
    page.get_by_role("link", name="What modules do").click()
    expect(page.get_by_role("rowheader", name=f"module 0: {HOSTILE}0")).to_be_visible()
    for name in ("Members by cut", "Cost between modules"):
        expect(page.get_by_role("region", name=name)).to_be_visible()
    expect(page.get_by_role("group", name=re.compile("Quality, .* over resolution"))).not_to_have_count(0)
    expect(page.get_by_text(re.compile("--epsilon 0.01"))).to_be_visible()
    sound(page)
    page.get_by_role("link", name=f"module 0: {HOSTILE}0").click()
    expect(page.get_by_role("region", name="Fed through")).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("Histogram of the energy"))).to_be_visible()
    expect(page.locator("article")).not_to_have_count(0)
    sound(page)
    page.goto(f"{service.url}#/modules/{service.partition}?node=1/0")
    expect(page.get_by_role("heading", name=f"{HOSTILE}n")).to_be_visible()
    expect(page.locator(".token.peak", has_text=TOKEN).first).to_be_visible()
    sound(page)
    page.goto(f"{service.url}#/modules/{service.partition}?node=1/1")
    expect(page.get_by_role("img", name=re.compile("Data point")).first).to_be_visible()
    page.get_by_role("link", name="Its place in the picture").click()
    page.get_by_role("link", name="Its card and labels").click()
    expect(page).to_have_url(re.compile("modules/.*node=1"))
    page.go_back()
    expect(page).to_have_url(re.compile("graph/.*node=1"))


def test_a_label_is_given_changed_and_removed_in_place(service: Service, visit: Open) -> None:
    page = visit(f"{service.url}#/modules/{service.partition}?module=1")
    page.get_by_role("button", name="Give a label").click()
    field = page.get_by_label("Label", exact=True)
    expect(field).to_be_focused()
    field.press("Escape")
    expect(page.get_by_role("button", name="Give a label")).to_be_focused()
    page.get_by_role("button", name="Give a label").press("Enter")
    field.fill(f" {HOSTILE} ")
    page.get_by_label("Your name").fill("ada")
    field.press("Enter")
    expect(page.get_by_role("heading", name=f"module 1: {HOSTILE}")).to_be_visible()
    page.reload()
    expect(page.get_by_text("ada (human)")).to_be_visible()
    stored = httpx.get(f"{service.url}/api/v1/partitions/{service.partition}/labels").json()["items"]
    assert [(row["text"], row["author"]) for row in stored if row["module"] == 1] == [(HOSTILE, "ada")]
    page.get_by_role("button", name="Edit label").click()
    expect(page.get_by_label("Your name")).to_have_value("ada")
    sound(page)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="Give a label")).to_be_visible()
    expect(page.get_by_role("heading", name="module 1", exact=True)).to_be_visible()


def test_what_is_not_stored_is_said_and_labels_need_a_token_of_their_scope(tmp_path: Path, visit: Open) -> None:
    with Store.open(str(tmp_path / "store.sqlite")) as store:
        partition = save_partition(store, save_graph(store).id).id
        read, submit = (store.new_token("page", scope).token for scope in ("read", "submit"))
    process, url = serve(tmp_path / "store.sqlite", "--workers", "0")
    page = visit(url, refused=(401, 403))
    page.get_by_label("Token", exact=True).fill(read)
    page.get_by_role("button", name="Open").click()
    page.goto(f"{url}#/modules/{partition}?node=0/0")
    expect(page.get_by_text(f"interbasis describe {partition}")).to_be_visible()
    page.get_by_role("button", name="Give a label").click()
    page.get_by_label("Label", exact=True).fill("edge")
    page.get_by_label("Your name").fill("ada")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("scope submit")
    sound(page)
    page.get_by_label("A token of scope submit").fill(submit)
    page.get_by_role("button", name="Use it").click()
    expect(page.get_by_role("heading", name="edge")).to_be_visible()
    page.goto(f"{url}#/modules/{partition}?module=7")
    expect(page.get_by_text("There is no module 7")).to_be_visible()
    page.close()  # which may be reading still
    stop(process)
